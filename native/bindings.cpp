// Python's view of the kernels: addresses and sizes in, nothing out. The only file that knows nanobind.
//
// Shapes, dtypes, contiguity and lifetimes are checked by elman/kernels/, the only importer; here an an
// integer (Tensor.data_ptr()), 0 for null. The interpreter is free while a kernel runs.
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
#include "ngram_index.hpp"
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
nb::ndarray<nb::pytorch, float, nb::ndim<1>, nb::device::cpu> memory(size_t floats) {
    auto* workspace = new elman::Workspace(floats * sizeof(float));
    nb::capsule owner(workspace, [](void* w) noexcept { delete static_cast<elman::Workspace*>(w); });
    return {workspace->as<float>(), {floats}, owner};
}

void output_nats(long rows, long hidden_size, long vocabulary_size, Address hidden, Address weight, Address bias,
                 Address targets, Address nats, Address gradient, Address dhidden, Address dweight, Address dbias,
                 int threads, bool bf16) {
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

// One direction of one layer. What forward saves has the layout of one instruction set: backward names it.
using Addresses = std::vector<Address>;
using Sizes = std::array<long, 3>;  // D, H, U
elman::RecurrenceShape recurrence_shape(int cell, const std::vector<int64_t>& batch_sizes, const Sizes& sizes,
                                        bool reverse, Address rows, int threads, bool bf16) {
    return {static_cast<elman::Cell>(cell), static_cast<long>(batch_sizes.size()), batch_sizes.at(0), sizes[0],
            sizes[1], batch_sizes.data(), reverse, at<const int64_t>(rows), sizes[2], threads, bf16};
}

elman::RecurrenceWeights recurrence_weights(const Addresses& a) {
    return {at<const float>(a.at(0)), at<const float>(a.at(1)), at<const float>(a.at(2)), at<const float>(a.at(3))};
}

const elman::Kernels& kernels_of(const std::string& instruction_set) {
    const elman::Kernels* found = elman::find(instruction_set.c_str());
    if (!found) throw nb::value_error("no kernels of this name");
    return *found;
}

size_t recurrence_saved_floats(const std::string& instruction_set, int cell, const std::vector<int64_t>& batch_sizes,
                               const Sizes& sizes, bool bf16) {
    return kernels_of(instruction_set).recurrence.saved_floats(
        recurrence_shape(cell, batch_sizes, sizes, false, 0, 1, bf16));
}

// tensors: weight_ih, weight_hh, bias_ih, bias_hh, x, h, c, output, last h, last c, saved, rows
void recurrence_forward(const std::string& instruction_set, int cell, const std::vector<int64_t>& batch_sizes,
                        const Sizes& sizes, bool reverse, const Addresses& a, int threads, bool bf16) {
    const elman::RecurrenceForward task{
        recurrence_shape(cell, batch_sizes, sizes, reverse, a.at(11), threads, bf16), recurrence_weights(a),
        at<const float>(a.at(4)), at<const float>(a.at(5)), at<const float>(a.at(6)), at<float>(a.at(7)),
        at<float>(a.at(8)), at<float>(a.at(9)), at<float>(a.at(10))};
    const elman::Kernels& kernels = kernels_of(instruction_set);
    nb::gil_scoped_release free;
    kernels.recurrence.forward(task);
}

// tensors: weight_ih, weight_hh, bias_ih, bias_hh, x, saved, doutput, dlast h, dlast c; then the results:
// dx, dh, dc, dweight_ih, dweight_hh, dbias_ih, dbias_hh; then rows
void recurrence_backward(const std::string& instruction_set, int cell, const std::vector<int64_t>& batch_sizes,
                         const Sizes& sizes, bool reverse, const Addresses& a, int threads, bool bf16) {
    const elman::RecurrenceBackward task{
        recurrence_shape(cell, batch_sizes, sizes, reverse, a.at(16), threads, bf16), recurrence_weights(a),
        at<const float>(a.at(4)), at<const float>(a.at(5)), at<const float>(a.at(6)), at<const float>(a.at(7)),
        at<const float>(a.at(8)), at<float>(a.at(9)), at<float>(a.at(10)), at<float>(a.at(11)), at<float>(a.at(12)),
        at<float>(a.at(13)), at<float>(a.at(14)), at<float>(a.at(15))};
    const elman::Kernels& kernels = kernels_of(instruction_set);
    nb::gil_scoped_release free;
    kernels.recurrence.backward(task);
}

// The n-grams of a text; elman/ngram/native.py.
class Ngrams {
    std::unique_ptr<elman::NgramCounts> counts_;

  public:
    Ngrams(Address ids, long size, long vocabulary_size, int order, int threads) {
        nb::gil_scoped_release free;
        counts_ = std::make_unique<elman::NgramCounts>(at<const int32_t>(ids), size, vocabulary_size, order, threads);
    }
    long rows(int n) const { return counts_->rows(n); }
    long kept(int n) const { return counts_->kept(n); }
    void columns(int n, Address keys, Address raw, Address suffix, Address initial) const {
        nb::gil_scoped_release free;
        counts_->columns(n, at<int64_t>(keys), at<int64_t>(raw), at<int64_t>(suffix), at<bool>(initial));
    }
    void adjust(Address cuts, Address of_counts) {
        nb::gil_scoped_release free;
        counts_->adjust(at<const int64_t>(cuts), at<int64_t>(of_counts));
    }
    void unigrams(Address adjusted) const { counts_->unigrams(at<int64_t>(adjusted)); }
    void estimate(int n, Address discount, Address first, Address keys, Address log10_prob, Address log10_backoff) {
        nb::gil_scoped_release free;
        counts_->estimate(n, at<const double>(discount), at<const double>(first), at<int64_t>(keys),
                          at<float>(log10_prob), at<float>(log10_backoff));
    }
};

bool ngram_children(Address keys, long rows, long contexts, long vocabulary_size, Address children) {
    nb::gil_scoped_release free;
    return elman::ngram_children(at<const int64_t>(keys), rows, contexts, vocabulary_size, at<uint32_t>(children));
}

using Tables = std::vector<std::array<Address, 4>>;  // of each order: keys, log10_prob, log10_backoff, children

std::vector<elman::NgramTable> orders(const Tables& tables) {
    std::vector<elman::NgramTable> found;
    for (const auto& [keys, prob, backoff, children] : tables)
        found.push_back({at<const int64_t>(keys), at<const float>(prob), at<const float>(backoff),
                         at<const uint32_t>(children)});
    return found;
}

void ngram_score(const Tables& tables, long vocabulary_size, Address stream, long places, long batch, Address log10,
                 Address matched, int threads) {
    nb::gil_scoped_release free;
    elman::ngram_score(orders(tables).data(), static_cast<int>(tables.size()), vocabulary_size,
                       at<const int64_t>(stream), places, batch, at<double>(log10), at<int64_t>(matched), threads);
}

// (the next row, bytes written)
std::pair<long, long> ngram_lines(const Tables& tables, int n, std::pair<Address, Address> tokens,
                                  long vocabulary_size, std::pair<long, long> rows, Address out, long room) {
    nb::gil_scoped_release free;
    int64_t bytes = 0;
    long next = elman::ngram_lines(orders(tables).data(), n, at<const char>(tokens.first),
                                   at<const int64_t>(tokens.second), vocabulary_size, rows.first, rows.second,
                                   at<char>(out), room, &bytes);
    return {next, bytes};
}

}  // namespace

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
    m.def("memory", &memory, "floats"_a);
    m.def("embedding_gradient", [](std::array<Address, 3> a, long rows, long size, long vocabulary, int threads) {
        elman::embedding_gradient(at<const int64_t>(a[0]), rows, size, at<const float>(a[1]), vocabulary,
                                  at<float>(a[2]), threads);  // tokens, doutput, dweight
    }, nb::call_guard<nb::gil_scoped_release>());
    m.def("sum_of_squares", &elman::sum_of_squares, nb::call_guard<nb::gil_scoped_release>());
    m.def("release_workspaces", &elman::release_workspaces);
    m.def("output_nats", &output_nats);
    m.def("peak", [](int threads, long rounds) { return elman::kernels().peak(threads, rounds); },
          nb::call_guard<nb::gil_scoped_release>(), "threads"_a, "rounds"_a);
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
    nb::class_<Ngrams>(m, "Ngrams")
        .def(nb::init<Address, long, long, int, int>(), "ids"_a, "size"_a, "vocabulary_size"_a, "order"_a, "threads"_a)
        .def("rows", &Ngrams::rows, "n"_a).def("kept", &Ngrams::kept, "n"_a)
        .def("columns", &Ngrams::columns, "n"_a, "keys"_a, "raw"_a, "suffix"_a, "initial"_a)
        .def("adjust", &Ngrams::adjust, "cuts"_a, "of_counts"_a).def("unigrams", &Ngrams::unigrams, "adjusted"_a)
        .def("estimate", &Ngrams::estimate, "n"_a, "discount"_a, "first"_a, "keys"_a, "log10_prob"_a,
             "log10_backoff"_a);
    m.def("ngram_children", &ngram_children, "keys"_a, "rows"_a, "contexts"_a, "vocabulary_size"_a, "children"_a);
    m.def("ngram_score", &ngram_score, "tables"_a, "vocabulary_size"_a, "stream"_a, "places"_a, "batch"_a, "log10"_a,
          "matched"_a, "threads"_a);
    nb::class_<elman::NgramIndex>(m, "NgramIndex")
        .def("__init__", [](elman::NgramIndex* to, const Tables& tables, const std::vector<int64_t>& rows, long size) {
            nb::gil_scoped_release free;
            new (to) elman::NgramIndex(orders(tables).data(), rows.data(), static_cast<int>(rows.size()), size);
        }, "tables"_a, "rows"_a, "vocabulary_size"_a)
        .def("bytes", &elman::NgramIndex::bytes)
        .def("score", [](const elman::NgramIndex& self, Address stream, long places, long batch, Address log10,
                         Address matched, int threads) {
            nb::gil_scoped_release free;
            self.score(at<const int64_t>(stream), places, batch, at<double>(log10), at<int64_t>(matched), threads);
        }, "stream"_a, "places"_a, "batch"_a, "log10"_a, "matched"_a, "threads"_a);
    m.def("ngram_lines", &ngram_lines, "tables"_a, "n"_a, "tokens"_a, "vocabulary_size"_a, "rows"_a, "out"_a,
          "room"_a);
}
