// Python's view of the kernels: addresses and sizes in, results written where they are wanted. With bindings_text.cpp the
// only file that knows nanobind.
//
// Shapes, dtypes, contiguity and lifetimes are checked by elman/kernels/, the only importer; here an address is
// an integer (Tensor.data_ptr()), 0 for null. The interpreter is free while a kernel runs.
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
#include "kernels.hpp"
#include "norm.hpp"
#include "threads.hpp"
#include "workspace.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Address = uintptr_t;

template <class T> T* at(Address address) { return reinterpret_cast<T*>(address); }

// A tensor whose memory goes back to the workspaces when it dies: fresh pages of megabytes at every window cost more
// than filling them.
nb::ndarray<nb::pytorch, float, nb::device::cpu> memory(const std::vector<size_t>& shape) {
    size_t floats = 1;
    for (size_t size : shape) floats *= size;
    auto* workspace = new elman::Workspace(floats * sizeof(float));
    nb::capsule owner(workspace, [](void* w) noexcept { delete static_cast<elman::Workspace*>(w); });
    return {workspace->as<float>(), shape.size(), shape.data(), owner};
}

// IndexError "<what> <size>" unless each id is in 0 … size-1
void check_ids(Address ids, long count, long size, const char* what) {
    const auto* all = at<const int64_t>(ids);
    bool inside = true;
    for (long i = 0; i < count; i++) inside &= static_cast<uint64_t>(all[i]) < static_cast<uint64_t>(size);
    if (!inside) throw nb::index_error((what + std::to_string(size)).c_str());
}

void output_nats(long rows, long hidden_size, long vocabulary_size, Address hidden, Address weight, Address bias,
                 Address targets, Address nats, Address gradient, Address dhidden, Address dweight, Address dbias,
                 int threads, bool bf16) {
    check_ids(targets, rows, vocabulary_size, "a target is outside the vocabulary of ");
    nb::gil_scoped_release free;
    elman::kernels().output.nats({rows, hidden_size, vocabulary_size, at<const float>(hidden),
                                  at<const float>(weight), at<const float>(bias), at<const int64_t>(targets),
                                  at<float>(nats), at<const float>(gradient), at<float>(dhidden),
                                  at<float>(dweight), at<float>(dbias), threads, bf16});
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

// One direction of some layers, each reading what the one before it left. What forward saves has the layout of one
// instruction set: backward names it.
using Sizes = std::array<long, 3>;  // D, H, U
using Layer = std::pair<Sizes, std::vector<Address>>;
struct Pass {
    int cell;
    std::vector<int64_t> batch_sizes;
    bool reverse, bf16;
    int threads;

    elman::RecurrenceShape shape(const Sizes& sizes, Address rows) const {
        return {static_cast<elman::Cell>(cell), static_cast<long>(batch_sizes.size()), batch_sizes.at(0), sizes[0],
                sizes[1], batch_sizes.data(), reverse, at<const int64_t>(rows), sizes[2], threads, bf16};
    }
};

elman::RecurrenceWeights recurrence_weights(const std::vector<Address>& a) {
    return {at<const float>(a.at(0)), at<const float>(a.at(1)), at<const float>(a.at(2)), at<const float>(a.at(3))};
}

const elman::Kernels& kernels_of(const std::string& instruction_set) {
    const elman::Kernels* found = elman::find(instruction_set.c_str());
    if (!found) throw nb::value_error("no kernels of this name");
    return *found;
}

size_t recurrence_saved_floats(const std::string& instruction_set, const Pass& pass, const Sizes& sizes) {
    return kernels_of(instruction_set).recurrence.saved_floats(pass.shape(sizes, 0));
}

// The layers in the order in which they run. The tensors of each: weight_ih, weight_hh, bias_ih, bias_hh, x, h, c,
// output, last h, last c, saved, rows
void recurrence_forward(const std::string& instruction_set, const Pass& pass, const std::vector<Layer>& layers) {
    std::vector<elman::RecurrenceForward> tasks;
    for (const auto& [sizes, a] : layers)
        tasks.push_back({pass.shape(sizes, a.at(11)), recurrence_weights(a), at<const float>(a.at(4)),
                         at<const float>(a.at(5)), at<const float>(a.at(6)), at<float>(a.at(7)), at<float>(a.at(8)),
                         at<float>(a.at(9)), at<float>(a.at(10))});
    const elman::Kernels& kernels = kernels_of(instruction_set);
    nb::gil_scoped_release free;
    for (const auto& task : tasks) kernels.recurrence.forward(task);
}

// The layers in the order in which they run, the last one first. The tensors of each: weight_ih, weight_hh, bias_ih,
// bias_hh, x, saved, doutput, dlast h, dlast c; then the results: dx, dh, dc, dweight_ih, dweight_hh, dbias_ih,
// dbias_hh; then rows
void recurrence_backward(const std::string& instruction_set, const Pass& pass, const std::vector<Layer>& layers) {
    std::vector<elman::RecurrenceBackward> tasks;
    for (const auto& [sizes, a] : layers)
        tasks.push_back({pass.shape(sizes, a.at(16)), recurrence_weights(a), at<const float>(a.at(4)),
                         at<const float>(a.at(5)), at<const float>(a.at(6)), at<const float>(a.at(7)),
                         at<const float>(a.at(8)), at<float>(a.at(9)), at<float>(a.at(10)), at<float>(a.at(11)),
                         at<float>(a.at(12)), at<float>(a.at(13)), at<float>(a.at(14)), at<float>(a.at(15))});
    const elman::Kernels& kernels = kernels_of(instruction_set);
    nb::gil_scoped_release free;
    for (const auto& task : tasks) kernels.recurrence.backward(task);
}

}  // namespace

void bind_text(nb::module_& m);  // bindings_text.cpp

NB_MODULE(_native, m) {
    m.def("instruction_set", [] { return std::string(elman::kernels().name); });
    m.def("instruction_sets", [] {
        std::vector<std::string> names;
        for (const char* const* name = elman::available(); *name; name++) names.emplace_back(*name);
        return names;
    });
    m.def("boundaries", [](const std::string& instruction_set) {
        nb::dict sizes;
        for (const auto* one = kernels_of(instruction_set).boundaries; one->name; one++) sizes[one->name] = one->size;
        return sizes;
    }, "instruction_set"_a);
    m.def("use", [](const std::string& name) { return elman::use(name.c_str()); }, "instruction_set"_a);
    m.def("bf16_is_faster", &elman::bf16_is_faster);
    m.def("pool", [] { return std::string(elman::pool()); });
    m.def("use_own_pool", &elman::use_own_pool, "own"_a);
    m.def("memory", &memory, "shape"_a);
    m.def("distinct", [](std::array<Address, 3> a, long count, long table_rows) {  // ids, tokens, rows
        check_ids(a[0], count, table_rows, "a row is outside a table of ");
        return elman::distinct(at<const int64_t>(a[0]), count, table_rows, at<int64_t>(a[1]), at<int64_t>(a[2]));
    });
    m.def("gather", [](std::array<Address, 3> a, long rows, long size, int threads) {
        elman::gather(at<const int64_t>(a[0]), rows, size, at<const float>(a[1]), at<float>(a[2]), threads);
    }, nb::call_guard<nb::gil_scoped_release>());  // tokens, weight, x
    m.def("embedding_gradient", [](std::array<Address, 3> a, long rows, long size, long vocabulary, int threads) {
        elman::embedding_gradient(at<const int64_t>(a[0]), rows, size, at<const float>(a[1]), vocabulary,
                                  at<float>(a[2]), threads);  // tokens, doutput, dweight
    }, nb::call_guard<nb::gil_scoped_release>());
    m.def("sum_of_squares", &elman::sum_of_squares, nb::call_guard<nb::gil_scoped_release>());
    m.def("release_workspaces", &elman::release_workspaces);
    m.def("output_nats", &output_nats);
    m.def("peak", [](int threads, long rounds) { return elman::kernels().peak(threads, rounds); },
          nb::call_guard<nb::gil_scoped_release>(), "threads"_a, "rounds"_a);
    nb::class_<Pass>(m, "Pass").def("__init__", [](Pass* self, int cell, std::vector<int64_t> batch_sizes, bool reverse,
                                                   bool bf16, int threads) {
        new (self) Pass{cell, std::move(batch_sizes), reverse, bf16, threads};
    });
    m.def("recurrence_saved_floats", &recurrence_saved_floats);
    m.def("recurrence_forward", &recurrence_forward);
    m.def("recurrence_backward", &recurrence_backward);
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
    bind_text(m);
}
