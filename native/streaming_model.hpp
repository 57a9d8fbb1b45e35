// The packed model: which weight lies where.
#pragma once

#include <atomic>
#include <vector>

#include "streaming_product.hpp"
#include "workspace.hpp"

namespace elman::ELMAN_ISA {

struct StreamPackedLayer {
    Packed input, recurrent;
    const float* bias;   // of the input product, packed order: both biases; of the GRU's n only the input's
    const float* inner;  // GRU: bias_recurrent of n, by unit; 0 else
    const float *bias_input, *bias_recurrent;  // in place: the caller's
};

struct StreamPacked : StreamModel {
    StreamCell cell;
    StreamWeights weights;
    long V, E, H, L;
    int gates, columns;   // G; C of the layers' panels: G, but 4 vectors of units where G = 1
    long units;           // of a panel
    long padded_h;        // the panels' units together: what is added stays zero
    StreamMatrix embedding;  // where the caller keeps it
    std::vector<StreamPackedLayer> layer;  // [L]
    Packed output;
    const float* output_bias;  // packed order, -infinity for columns that are added; or the caller's
    mutable std::atomic<unsigned> turn{0};  // calls so far: every second one goes backward
    Workspace memory;

    explicit StreamPacked(const StreamSource& source)
        : memory(Carver(source, *this, nullptr).bytes()) {
        Carver(source, *this, memory.as<char>()).copy();
    }

  private:
    // Twice over the same parts: once to count the bytes, once to fill them.
    class Carver {
      public:
        Carver(const StreamSource& source, StreamPacked& model, char* memory)
            : source_(source), model_(model), memory_(memory) {
            model.cell = source.cell, model.weights = source.weights;
            model.V = source.vocabulary_size, model.E = source.embedding_size;
            model.H = source.hidden_size, model.L = source.layers;
            model.layer.resize(static_cast<size_t>(model.L));
            model.gates = source.cell == StreamCell::lstm ? 4 : source.cell == StreamCell::gru ? 3 : 1;
            model.columns = model.gates == 1 ? 4 : model.gates;
            model.units = model.columns / model.gates * LANES;
            model.padded_h = round_up(model.H, model.units);
            model.embedding = source.embedding;
        }
        size_t bytes() {
            all();
            return static_cast<size_t>(used_);
        }
        void copy() { all(); }

      private:
        const StreamSource& source_;
        StreamPacked& model_;
        char* memory_;
        long used_ = 0;

        template <class T> T* part(long count) {
            char* at = memory_ ? memory_ + used_ : nullptr;
            used_ = round_up(used_ + count * static_cast<long>(sizeof(T)), 64);
            return reinterpret_cast<T*>(at);
        }

        // Row of the stored matrix in a gate product's packed column, or -1.
        long row_of(long column) const {
            const StreamPacked& m = model_;
            long vector = column / LANES, lane = column % LANES;
            long gate = m.gates == 1 ? 0 : vector % m.gates;
            long unit = (m.gates == 1 ? vector : vector / m.gates) * LANES + lane;
            return unit < m.H ? gate * m.H + unit : -1;
        }

        void all() {
            const long panels = model_.padded_h / model_.units;
            for (long l = 0; l < model_.L; l++) {
                const StreamLayer& from = source_.layer[l];
                StreamPackedLayer& to = model_.layer[static_cast<size_t>(l)];
                auto gate_row = [this](long column) { return row_of(column); };
                to.input = matrix(from.input, l ? model_.H : model_.E, panels, model_.columns, gate_row);
                to.recurrent = matrix(from.recurrent, model_.H, panels, model_.columns, gate_row);
                to.bias_input = from.bias_input, to.bias_recurrent = from.bias_recurrent;
                for (Packed* one : {&to.input, &to.recurrent})
                    if (model_.gates > 1) place_gates(*one);
                    else place_units(*one, model_.H);
                if (in_place()) continue;
                float* bias = part<float>(panels * model_.columns * LANES);
                float* inner = part<float>(model_.padded_h);
                to.bias = bias, to.inner = inner;
                if (!memory_) continue;
                for (long column = 0; column < panels * model_.columns * LANES; column++) {
                    const long row = row_of(column);
                    const bool apart = model_.cell == StreamCell::gru && row >= 2 * model_.H;
                    const float input = row < 0 ? 0.f : from.bias_input[row];
                    bias[column] = row < 0 || apart ? input : input + from.bias_recurrent[row];
                }
                for (long unit = 0; unit < model_.padded_h; unit++) {
                    const bool there = model_.cell == StreamCell::gru && unit < model_.H;
                    inner[unit] = there ? from.bias_recurrent[2 * model_.H + unit] : 0.f;
                }
            }
            const long V = model_.V, out = (V + 4 * LANES - 1) / (4 * LANES);
            auto output_row = [V](long column) { return column < V ? column : -1; };
            model_.output = matrix(source_.output, model_.H, out, 4, output_row);
            place_units(model_.output, V);
            model_.output_bias = source_.output_bias;
            if (in_place()) return;
            float* bias = part<float>(out * 4 * LANES);
            model_.output_bias = bias;
            if (memory_)
                for (long v = 0; v < out * 4 * LANES; v++) bias[v] = v < V ? source_.output_bias[v] : -__builtin_inff();
        }

        bool in_place() const { return model_.weights == StreamWeights::in_place; }
        void place_gates(Packed& matrix) const {
            matrix.units = matrix.row_step = model_.H, matrix.panel_step = LANES, matrix.unit_step = 0;
        }
        static void place_units(Packed& matrix, long units) {
            matrix.units = units, matrix.panel_step = matrix.columns * LANES;
            matrix.unit_step = matrix.row_step = LANES;
        }

        template <class Row>
        Packed matrix(const StreamMatrix& from, long depth, long panels, int columns, const Row& row_of) {
            const char* rows = static_cast<const char*>(from.data);
            if (in_place()) return {rows, nullptr, nullptr, panels, depth, columns, 0, 0, 0, 0};
            const bool quantized = model_.weights == StreamWeights::int8;
            const long per_word = quantized ? 4 : model_.weights == StreamWeights::bfloat16 ? 2 : 1;
            const long size = 4 / per_word;
            const long words = round_up((depth + per_word - 1) / per_word, 2);
            const long count = panels * columns * LANES;
            char* data = part<char>(count * words * 4);
            float* scale = part<float>(quantized ? count : 0);
            int32_t* sums = part<int32_t>(quantized ? count : 0);
            if (memory_) {
                for (long column = 0; column < count; column++) {
                    const long row = row_of(column), panel = column / (columns * LANES);
                    const char* source = rows + (row < 0 ? 0 : row * depth * size);
                    char* to = data + (panel * words * columns * LANES + column % (columns * LANES)) * 4;
                    int32_t total = 0;
                    for (long w = 0; w < words; w++, to += columns * VECTOR) {
                        const long k = w * per_word, left = row < 0 || k >= depth ? 0 : depth - k;
                        const long there = left < per_word ? left : per_word;
                        uint32_t word = 0;
                        memcpy(&word, source + (there ? k * size : 0), there * size);
                        memcpy(to, &word, 4);
                        for (int byte = 0; quantized && byte < 4; byte++)
                            total += static_cast<int8_t>(word >> (8 * byte) & 255u);
                    }
                    if (!quantized) continue;
                    scale[column] = row < 0 ? 0.f : from.scale[row];
                    sums[column] = 128 * total;
                }
            }
            return {data, scale, sums, panels, words, columns, 0, 0, 0, 0};
        }
    };
};

}  // namespace elman::ELMAN_ISA
