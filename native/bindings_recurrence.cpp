// Python's view of the recurrence: one direction of some layers, each reading what the one before it left. As bindings.cpp:
// everything is checked here, so that no tensors, whatever they are, lead to an address outside of them.
//
// Axes as in kernels.hpp; L layers, U rows of x.
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <string>
#include <tuple>
#include <vector>

#include "given.hpp"
#include "kernels.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using namespace elman;

namespace {

using Pass = std::tuple<std::string, std::string, std::vector<int64_t>, bool, bool, int>;
// instruction set, cell, batch sizes, reverse, bf16, threads

struct Kind {
    Cell cell;
    int64_t gates;
    size_t states;
};

Kind kind_of(const std::string& cell) {
    if (cell == "rnn_tanh") return {Cell::rnn_tanh, 1, 1};
    if (cell == "rnn_relu") return {Cell::rnn_relu, 1, 1};
    if (cell == "lstm") return {Cell::lstm, 4, 2};
    if (cell == "gru") return {Cell::gru, 3, 1};
    throw std::invalid_argument("no cell of the name '" + cell + "'");
}

const RecurrenceKernels& kernels_of(const std::string& instruction_set) {
    const Kernels* found = find(instruction_set.c_str());
    if (!found) throw std::invalid_argument("no kernels of the name '" + instruction_set + "'");
    return found->recurrence;
}

int64_t rows_of(const std::vector<int64_t>& batch_sizes) {
    int64_t rows = 0;
    require(!batch_sizes.empty(), "a sequence without a step");
    for (size_t t = 0; t < batch_sizes.size(); t++) {
        const int64_t size = batch_sizes[t];
        require(size >= 1 && size <= int64_t{1} << 48 && (!t || size <= batch_sizes[t - 1]), "batch sizes that grow or are not positive");
        require(!__builtin_add_overflow(rows, size, &rows), "batch sizes without end");
    }
    return rows;
}

// What forward and backward of some layers share, checked once: the sequence, the weights and what the first layer reads.
class Recurrence {
  public:
    Recurrence(Pass pass, const std::vector<Given>& weights, const Given& x, const Given& rows)
        : pass_(std::move(pass)), kernels_(kernels_of(std::get<0>(pass_))), kind_(kind_of(std::get<1>(pass_))),
          N_(rows_of(batch_sizes())), B_(batch_sizes()[0]) {
        require(std::get<5>(pass_) >= 1, "not one thread");
        each_ = weights.size() > 2 && weights[2].second.size() == 1 ? 4 : 2;
        require(!weights.empty() && weights.size() % each_ == 0, "a number of weights that is not of whole layers");
        require(weights[0].second.size() == 2 && weights[1].second.size() == 2, "weights that are no matrices");
        D_ = weights[0].second[1], H_ = weights[1].second[1];
        require(D_ >= 1 && H_ >= 1, "a size of 0");
        L_ = static_cast<long>(weights.size() / each_);
        layers_.resize(weights.size() / each_);
        for (size_t k = 0; k < layers_.size(); k++) {
            const auto w = of_layer(weights, k, false);
            layers_[k] = {w[0], w[1], w[2], w[3]};
        }
        require(!x.second.empty() && x.second.back() == D_, "x is " + written(x.second) + ", the input size " + std::to_string(D_));
        x_ = reinterpret_cast<const float*>(x.first);
        U_ = numbers_in(x.second, x.second.size() - 1);
        if (is_there(rows)) {
            rows_ = counted<const int64_t>(rows, N_, "rows");
            require(U_ >= 1, "a table without a row");
            check_ids(rows_, N_, U_, "a row is outside a table of ");
        } else {
            require(U_ == N_, "x has " + std::to_string(U_) + " rows, the batch sizes " + std::to_string(N_));
        }
    }

    // L, N, B, H
    std::tuple<long, long, long, long> sizes() const { return {L_, N_, B_, H_}; }

    // state and last: h (and c) [L, B, H]; between: what each layer leaves to the next, L-1 times [N, H], the same memory
    // again at least one later; output [N, H]; saved: of each layer `recurrence_saved_floats`, or none at all
    void forward(const std::vector<Given>& state, const std::vector<Given>& between, const Given& output,
                 const std::vector<Given>& last, const std::vector<Given>& saved) const {
        const auto first = states(state, "state", false), end = states(last, "last state", false);
        check_between(between);
        require(saved.empty() || saved.size() == layers_.size(), "what is saved is not of each layer");
        std::vector<RecurrenceForward> tasks;
        for (size_t k = 0; k < layers_.size(); k++) {
            float* to = counted<float>(k + 1 < layers_.size() ? between[k] : output, N_ * H_, "output");
            tasks.push_back({shape(k), layers_[k], k ? tasks[k - 1].output : x_, at(first[0], k), at(first[1], k), to,
                             at(end[0], k), at(end[1], k), saved.empty() ? nullptr : saved_of(saved[k], k)});
        }
        nb::gil_scoped_release free;
        for (const auto& task : tasks) kernels_.forward(task);
    }

    // saved and between as forward left them, each [N, H] of its own; doutput [N, H] and dlast, each may not be there. The
    // layers from the last one down to `lowest`. made: memory [N, H] for what goes down between them, one or two of it.
    // Results, each may not be there: dx, dstate, dweights
    void backward(const std::vector<Given>& saved, const std::vector<Given>& between, const std::vector<Given>& gradients,
                  long lowest, const std::vector<Given>& made, const std::vector<Given>& results) const {
        const size_t count = kind_.states;
        const auto n_states = static_cast<long>(count);
        require(gradients.size() == 1 + count && results.size() == 1 + count + each_ * layers_.size() &&
                    saved.size() == layers_.size() && 0 <= lowest && lowest < L_ && (lowest == L_ - 1 || !made.empty()),
                "gradients, results or what is saved");
        check_between(between);
        using Some = std::vector<Given>;
        const auto dlast = states(Some(gradients.begin() + 1, gradients.end()), "gradient of the last state", true);
        const auto dfirst = states(Some(results.begin() + 1, results.begin() + 1 + n_states), "dstate", true);
        const Some dweights(results.begin() + 1 + n_states, results.end());
        const float* above = counted_or_null<const float>(gradients[0], N_ * H_, "gradient of the output");
        std::vector<RecurrenceBackward> tasks;
        for (long k = L_ - 1; k >= lowest; k--) {
            const auto layer = static_cast<size_t>(k);
            const float* reads = k ? counted<const float>(between[layer - 1], N_ * H_, "what a layer reads") : x_;
            float* below = k == 0       ? counted_or_null<float>(results[0], U_ * D_, "dx")
                           : k > lowest ? counted<float>(made[layer % made.size()], N_ * H_, "memory")
                                        : nullptr;
            const auto d = of_layer(dweights, layer, true);
            tasks.push_back({shape(layer), layers_[layer], reads, saved_of(saved[layer], layer), above,
                             at(dlast[0], layer), at(dlast[1], layer), below, at(dfirst[0], layer), at(dfirst[1], layer),
                             d[0], d[1], d[2], d[3]});
            above = below;
        }
        nb::gil_scoped_release free;
        for (const auto& task : tasks) kernels_.backward(task);
    }

  private:
    Pass pass_;
    const RecurrenceKernels& kernels_;
    Kind kind_;
    int64_t N_, B_, D_ = 0, H_ = 0, U_ = 0;
    long L_ = 0;
    size_t each_ = 0;
    std::vector<RecurrenceWeights> layers_;
    const float* x_ = nullptr;
    const int64_t* rows_ = nullptr;

    const std::vector<int64_t>& batch_sizes() const { return std::get<2>(pass_); }

    RecurrenceShape shape(size_t layer) const {
        return {kind_.cell, static_cast<long>(batch_sizes().size()), B_, layer ? H_ : D_, H_, batch_sizes().data(),
                std::get<3>(pass_), layer ? nullptr : rows_, layer ? N_ : U_, std::get<5>(pass_), std::get<4>(pass_)};
    }

    // weight_ih, weight_hh, bias_ih, bias_hh of one layer; the biases null where there are none
    std::array<float*, 4> of_layer(const std::vector<Given>& all, size_t layer, bool may_lack) const {
        static const char* const names[] = {"weight_ih", "weight_hh", "bias_ih", "bias_hh"};
        const int64_t rows = times(kind_.gates, H_);
        const Shape shapes[] = {{rows, layer ? H_ : D_}, {rows, H_}, {rows}, {rows}};
        std::array<float*, 4> found{};
        for (size_t i = 0; i < each_; i++)
            found[i] = of_shape(all[layer * each_ + i], shapes[i], names[i], may_lack);
        return found;
    }
    // h (and c) [L, B, H]; c null but in the LSTM
    std::array<float*, 2> states(const std::vector<Given>& given, const char* name, bool may_lack) const {
        require(given.size() == kind_.states, std::string(name) + " of " + std::to_string(given.size()) + " tensors");
        std::array<float*, 2> found{};
        for (size_t i = 0; i < given.size(); i++) found[i] = of_shape(given[i], {L_, B_, H_}, name, may_lack);
        return found;
    }
    static float* of_shape(const Given& given, const Shape& shape, const char* name, bool may_lack) {
        return may_lack && !is_there(given) ? nullptr : shaped<float>(given, shape, name);
    }
    float* at(float* state, size_t layer) const {
        return state ? state + static_cast<int64_t>(layer) * B_ * H_ : nullptr;
    }
    float* saved_of(const Given& saved, size_t layer) const {
        auto* found = counted<float>(saved, static_cast<int64_t>(kernels_.saved_floats(shape(layer))), "what is saved");
        require(saved.first % 64 == 0, "what is saved lies at an odd address");
        return found;
    }
    void check_between(const std::vector<Given>& between) const {
        require(between.size() + 1 == layers_.size(), "what stands between the layers");
    }
};

}  // namespace

void bind_recurrence(nb::module_& m) {
    m.def("recurrence_saved_floats", [](const Pass& pass, long hidden_size) {  // of one layer, whatever its input size
        const auto& [set, cell, batch_sizes, reverse, bf16, threads] = pass;
        const int64_t rows = rows_of(batch_sizes);
        require(hidden_size >= 1 && times(rows, hidden_size) >= 1, "a size of 0");
        return kernels_of(set).saved_floats({kind_of(cell).cell, static_cast<long>(batch_sizes.size()), batch_sizes[0], 1,
                                             hidden_size, batch_sizes.data(), reverse, nullptr, 0, threads, bf16});
    });
    nb::class_<Recurrence>(m, "Recurrence")
        .def(nb::init<Pass, const std::vector<Given>&, const Given&, const Given&>(), "pass"_a, "weights"_a, "x"_a, "rows"_a)
        .def_prop_ro("sizes", &Recurrence::sizes)
        .def("forward", &Recurrence::forward, "state"_a, "between"_a, "output"_a, "last"_a, "saved"_a)
        .def("backward", &Recurrence::backward, "saved"_a, "between"_a, "gradients"_a, "lowest"_a, "made"_a, "results"_a);
}
