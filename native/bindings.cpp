// Python's view of the kernels: addresses and shapes in, results written where they are wanted. With the other bindings the
// only files that know nanobind.
//
// That a tensor lies at its address, without gaps and in the right dtype, is checked by elman/kernels/native.py, the only
// importer; all sizes here (given.hpp). The interpreter is free while a kernel runs.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "embedding.hpp"
#include "given.hpp"
#include "kernels.hpp"
#include "norm.hpp"
#include "threads.hpp"
#include "workspace.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Address = uintptr_t;
using elman::Given;

template <class T> T* at(Address address) { return reinterpret_cast<T*>(address); }

// A tensor whose memory goes back to the workspaces when it dies: fresh pages of megabytes at every window cost more
// than filling them.
nb::ndarray<nb::pytorch, float, nb::device::cpu> memory(const std::vector<size_t>& shape) {
    const int64_t floats = elman::numbers_in({shape.begin(), shape.end()});
    auto* workspace = new elman::Workspace(static_cast<size_t>(floats) * sizeof(float));
    nb::capsule owner(workspace, [](void* w) noexcept { delete static_cast<elman::Workspace*>(w); });
    return {workspace->as<float>(), shape.size(), shape.data(), owner};
}

// hidden [N, H] (of any shape: [T, B, H] as well), weight [V, H], bias [V] or nothing, targets [N]; results, each may not be
// there: nats [N], and of the `gradient` [N] that comes for them, dhidden, dweight and dbias
void output_nats(const Given& hidden, const Given& weight, const Given& bias, const Given& targets, const Given& gradient,
                 const std::array<Given, 4>& results, int threads, bool bf16) {
    elman::require(weight.second.size() == 2, "weight is no matrix");
    const int64_t V = weight.second[0], H = weight.second[1], rows = elman::numbers_in(targets.second);
    elman::require(V >= 1 && H >= 1 && threads >= 1, "a size of 0");
    elman::Shape of_hidden(targets.second);
    of_hidden.push_back(H);
    const elman::OutputTask task{
        rows, H, V, elman::shaped<float>(hidden, of_hidden, "hidden"), elman::shaped<float>(weight, {V, H}, "weight"),
        elman::shaped_or_null<float>(bias, {V}, "bias"), elman::shaped<int64_t>(targets, targets.second, "targets"),
        elman::counted_or_null<float>(results[0], rows, "nats"),
        elman::shaped_or_null<float>(gradient, targets.second, "gradient"),
        elman::shaped_or_null<float>(results[1], of_hidden, "dhidden"),
        elman::shaped_or_null<float>(results[2], {V, H}, "dweight"), elman::shaped_or_null<float>(results[3], {V}, "dbias"),
        threads, bf16};
    elman::check_ids(task.targets, rows, V, "a target is outside the vocabulary of ");
    if (!rows) return;
    nb::gil_scoped_release free;
    elman::kernels().output.nats(task);
}

// ids of any shape; tokens: room for as many; rows as ids. How many are distinct.
long distinct(const Given& ids, const Given& tokens, const Given& rows, long table_rows) {
    const int64_t count = elman::numbers_in(ids.second);
    const auto* all = elman::shaped<const int64_t>(ids, ids.second, "ids");
    auto* found = elman::counted<int64_t>(tokens, count, "tokens");
    auto* places = elman::shaped<int64_t>(rows, ids.second, "rows");
    elman::check_ids(all, count, table_rows, "a row is outside a table of ");
    return count ? elman::distinct(all, count, table_rows, found, places) : 0;
}

// tokens of any shape, N in all; weight [V, E] → x [N, E]
void gather(const Given& tokens, const Given& weight, const Given& x, int threads) {
    elman::require(weight.second.size() == 2 && threads >= 1, "weight is no matrix");
    const int64_t rows = elman::numbers_in(tokens.second), V = weight.second[0], E = weight.second[1];
    const auto* ids = elman::shaped<const int64_t>(tokens, tokens.second, "tokens");
    const auto* from = elman::shaped<const float>(weight, {V, E}, "weight");
    auto* to = elman::shaped<float>(x, {rows, E}, "x");
    elman::check_ids(ids, rows, V, "a row is outside a table of ");
    nb::gil_scoped_release free;
    if (rows && E) elman::gather(ids, rows, E, from, to, threads);
}

// tokens of any shape; doutput [..., E] → dweight [V, E]
void embedding_gradient(const Given& tokens, const Given& doutput, const Given& dweight, int threads) {
    elman::require(dweight.second.size() == 2 && threads >= 1, "dweight is no matrix");
    const int64_t rows = elman::numbers_in(tokens.second), V = dweight.second[0], E = dweight.second[1];
    elman::Shape of_output(tokens.second);
    of_output.push_back(E);
    const auto* ids = elman::shaped<const int64_t>(tokens, tokens.second, "tokens");
    const auto* from = elman::shaped<const float>(doutput, of_output, "doutput");
    auto* to = elman::shaped<float>(dweight, {V, E}, "dweight");
    elman::check_ids(ids, rows, V, "a token is outside a vocabulary of ");
    nb::gil_scoped_release free;
    if (V && E) elman::embedding_gradient(ids, rows, E, from, V, to, threads);
}

// A packed model. The matrices are given as (data, scale) pairs in the order embedding, then input and recurrent
// of each layer, then output; the biases as input and recurrent of each layer, then output. The embedding is
// read where it lies: the caller keeps it.
class Stream {
  public:
    Stream(int cell, int weights, long vocabulary_size, long embedding_size, long hidden_size,
           const std::vector<std::pair<Address, Address>>& matrices, const std::vector<Address>& biases)
        : vocabulary_size_(vocabulary_size) {
        auto matrix = [&](size_t i) {
            return elman::StreamMatrix{at<const void>(matrices[i].first), at<const float>(matrices[i].second)};
        };
        std::vector<elman::StreamLayer> layers((matrices.size() - 2) / 2);
        for (size_t l = 0; l < layers.size(); l++)
            layers[l] = {matrix(2 * l + 1), matrix(2 * l + 2), at<const float>(biases[2 * l]),
                         at<const float>(biases[2 * l + 1])};
        const elman::StreamSource source{
            static_cast<elman::StreamCell>(cell), static_cast<elman::StreamWeights>(weights), vocabulary_size,
            embedding_size, hidden_size, static_cast<long>(layers.size()), matrix(0), layers.data(),
            matrix(matrices.size() - 1), at<const float>(biases.back())};
        nb::gil_scoped_release free;
        model_ = elman::kernels().stream->pack(source);
    }
    ~Stream() { model_->kernels->free(model_); }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    // (h, c, h after, c after); tokens [T, B]; log_probs [B, V] or 0; (targets, nats) [T, B] or 0
    void advance(long steps, long batch, std::tuple<Address, Address, Address, Address> state, Address tokens,
                 Address log_probs, Address targets, Address nats, int threads) const {
        elman::StreamCall call = common(steps, batch, state, tokens, threads);
        call.log_probs = at<float>(log_probs);
        call.targets = at<const int64_t>(targets), call.nats = at<float>(nats);
        if (targets) check(at<const int64_t>(targets), steps * batch);
        run(call);
    }
    // One step, then a token for each row: uniform [B] float64, drawn [B] int64, nats [B]
    void draw(long batch, std::tuple<Address, Address, Address, Address> state, Address tokens,
              std::tuple<double, long, double, int64_t> how, Address uniform, Address drawn, Address nats,
              int threads) const {
        auto [temperature, top_k, top_p, excluded] = how;
        const elman::StreamDraw draw{temperature, top_k, top_p, excluded, at<const double>(uniform),
                                     at<int64_t>(drawn), at<float>(nats)};
        elman::StreamCall call = common(1, batch, state, tokens, threads);
        call.draw = &draw;
        run(call);
    }
    // One step, then the `most` best tokens of each row [B, most] and their log-probabilities
    void best(long batch, std::tuple<Address, Address, Address, Address> state, Address tokens, long most,
              Address best_tokens, Address best_log_probs, int threads) const {
        elman::StreamCall call = common(1, batch, state, tokens, threads);
        call.best = most, call.best_tokens = at<int64_t>(best_tokens);
        call.best_log_probs = at<float>(best_log_probs);
        run(call);
    }

  private:
    elman::StreamModel* model_;
    long vocabulary_size_;

    void check(const int64_t* ids, long count) const {
        for (long i = 0; i < count; i++)
            if (ids[i] < 0 || ids[i] >= vocabulary_size_) throw nb::index_error("index out of range in self");
    }
    elman::StreamCall common(long steps, long batch, const std::tuple<Address, Address, Address, Address>& state,
                             Address tokens, int threads) const {
        elman::StreamCall call{};
        check(at<const int64_t>(tokens), steps * batch);
        call.steps = steps, call.batch = batch, call.tokens = at<const int64_t>(tokens), call.threads = threads;
        call.h = at<const float>(std::get<0>(state)), call.c = at<const float>(std::get<1>(state));
        call.h_after = at<float>(std::get<2>(state)), call.c_after = at<float>(std::get<3>(state));
        return call;
    }
    void run(const elman::StreamCall& call) const {
        nb::gil_scoped_release free;
        model_->kernels->run(*model_, call);
    }
};

}  // namespace

void bind_recurrence(nb::module_& m);  // bindings_recurrence.cpp
void bind_text(nb::module_& m);        // bindings_text.cpp

NB_MODULE(_native, m) {
    m.def("instruction_set", [] { return std::string(elman::kernels().name); });
    m.def("instruction_sets", [] {
        std::vector<std::string> names;
        for (const char* const* name = elman::available(); *name; name++) names.emplace_back(*name);
        return names;
    });
    m.def("use", [](const std::string& name) { return elman::use(name.c_str()); }, "instruction_set"_a);
    m.def("bf16_is_faster", &elman::bf16_is_faster);
    m.def("pool", [] { return std::string(elman::pool()); });
    m.def("use_own_pool", &elman::use_own_pool, "own"_a);
    m.def("memory", &memory, "shape"_a);
    m.def("distinct", &distinct, "ids"_a, "tokens"_a, "rows"_a, "table_rows"_a);
    m.def("gather", &gather, "tokens"_a, "weight"_a, "x"_a, "threads"_a);
    m.def("embedding_gradient", &embedding_gradient, "tokens"_a, "doutput"_a, "dweight"_a, "threads"_a);
    m.def("sum_of_squares", &elman::sum_of_squares, nb::call_guard<nb::gil_scoped_release>());
    m.def("release_workspaces", &elman::release_workspaces);
    m.def("output_nats", &output_nats);
    m.def("peak", [](int threads, long rounds) { return elman::kernels().peak(threads, rounds); },
          nb::call_guard<nb::gil_scoped_release>(), "threads"_a, "rounds"_a);
    nb::class_<Stream>(m, "Stream")
        .def(nb::init<int, int, long, long, long, const std::vector<std::pair<Address, Address>>&,
                      const std::vector<Address>&>(),
             "cell"_a, "weights"_a, "vocabulary_size"_a, "embedding_size"_a, "hidden_size"_a, "matrices"_a, "biases"_a)
        .def("advance", &Stream::advance, "steps"_a, "batch"_a, "state"_a, "tokens"_a, "log_probs"_a, "targets"_a,
             "nats"_a, "threads"_a)
        .def("draw", &Stream::draw, "batch"_a, "state"_a, "tokens"_a, "how"_a, "uniform"_a, "drawn"_a, "nats"_a,
             "threads"_a)
        .def("best", &Stream::best, "batch"_a, "state"_a, "tokens"_a, "most"_a, "tokens_out"_a, "log_probs"_a,
             "threads"_a);
    bind_recurrence(m);
    bind_text(m);
}
