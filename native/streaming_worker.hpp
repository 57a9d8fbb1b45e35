// What a thread of a streaming call has: its share of the panels, its scratch, the rows that a layer reads.
#pragma once

#include "matrix.hpp"
#include "streaming_model.hpp"
#include "threads.hpp"

namespace elman::ELMAN_ISA {

constexpr long WINDOW_ROWS = 256;  // of a chunk
constexpr long FEW_INPUTS = 8;     // rows that every thread prepares for itself: cheaper than a barrier

// Scratch of one call; counted and laid out once.
struct StreamScratch {
    long N, sum_rows, activation_bytes, private_bytes, total = 0;
    long h, c, inputs, input_scales, outputs[2], products, targets, sums, logits, own;

    StreamScratch(const StreamPacked& m, const StreamCall& call, int threads, bool keep_logits) {
        const long B = call.batch, most = WINDOW_ROWS / B < 1 ? 1 : WINDOW_ROWS / B;
        N = (most < call.steps ? most : call.steps) * B;
        const long floats = round_up(m.E > m.H ? m.E : m.H, 4 * LANES);
        activation_bytes = floats * 4;
        h = part(m.L * B * m.padded_h * 4), c = part(m.L * B * m.padded_h * 4);
        inputs = part(N * activation_bytes), input_scales = part(N * 4);
        for (long& one : outputs) one = part((N + B) * m.padded_h * 4);
        products = part(N * m.padded_h * m.gates * 4);
        targets = part(N * 4);
        sums = part(threads * N * 2 * 4);
        logits = part(keep_logits ? B * m.V * 4 : 0);
        // a thread's own: a few inputs (or a step's rows) and their scales; softmax sums, of a few rows for each panel;
        // a panel of products
        const long few = FEW_INPUTS > B ? FEW_INPUTS : B, apart = FEW_INPUTS * m.output.panels;
        sum_rows = N > apart ? N : apart;
        private_bytes = round_up(few * activation_bytes + few * 4, 64) + sum_rows * 2 * VECTOR + N * 4 * VECTOR;
        own = part(threads * private_bytes);
    }

  private:
    long part(long bytes) {
        long at = total;
        total = round_up(total + bytes, 64);
        return at;
    }
};

template <class Kind> class StreamWorker {
  public:
    StreamWorker(const StreamPacked& model, const StreamCall& call, const StreamScratch& at, char* memory,
                 const Member& me)
        : m_(model), call_(call), at_(at), memory_(memory), me_(me), B(call.batch), Hp(model.padded_h),
          own_(memory + at.own + me.index * at.private_bytes) {
        const long few = FEW_INPUTS > B ? FEW_INPUTS : B;
        own_scales_ = reinterpret_cast<float*>(own_ + few * at.activation_bytes);
        own_sums_ = reinterpret_cast<float*>(own_ + round_up(few * (at.activation_bytes + 4), 64));
        room_ = own_sums_ + at.sum_rows * 2 * LANES;
        units_ = me.share(model.padded_h / model.units);
        words_ = me.share(model.output.panels);
        turn_ = model.turn.load(std::memory_order_relaxed);
    }

  protected:
    const StreamPacked& m_;
    const StreamCall& call_;
    const StreamScratch& at_;
    char* memory_;
    const Member& me_;
    const long B, Hp;
    char* own_;
    float *own_scales_, *own_sums_, *room_;
    Member::Share units_, words_;  // panels
    unsigned turn_;
    long first_ = 0, steps_ = 0;  // of the chunk

    float* floats(long at) const { return reinterpret_cast<float*>(memory_ + at); }
    // [B + N, Hp]: h before, then of each step
    float* outputs(long l) const { return floats(at_.outputs[l & 1]); }

    template <class F> void for_panels(Member::Share share, unsigned turn, const F& f) const {
        if (turn & 1)
            for (long panel = share.end; panel-- > share.begin;) f(panel);
        else
            for (long panel = share.begin; panel < share.end; panel++) f(panel);
    }

    // Rows [first, first + count) of what layer l reads; l = L: of what the output layer reads.
    Activations inputs(long l, long first, long count, const Packed& matrix) {
        const long width = matrix.words * Kind::STEP;  // bytes
        const float* below = l ? outputs(l - 1) + (B + first) * Hp : nullptr;
        const bool few = count <= FEW_INPUTS, rounded = rounds<Kind>(count);
        if (!Kind::QUANTIZED && !rounded && l) return {reinterpret_cast<const char*>(below), Hp * 4, nullptr};
        char* to = few ? own_ : memory_ + at_.inputs;
        float* scales = few ? own_scales_ : floats(at_.input_scales);
        Member::Share rows = few ? Member::Share{0, count} : me_.share(count);
        for (long row = rows.begin; row < rows.end; row++) {
            char* target = to + row * at_.activation_bytes;
            const float* x = below + row * Hp;
            if (l == 0) x = embed(call_.tokens[first_ * B + first + row], target);
            if constexpr (Kind::QUANTIZED)
                scales[row] = quantize(reinterpret_cast<uint8_t*>(target), x, l ? m_.H : m_.E, width);
            if (rounded) round(reinterpret_cast<uint32_t*>(target), x, l ? m_.H : m_.E, matrix.words);
        }
        if (!few) me_.wait();
        return {to, at_.activation_bytes, scales, rounded};
    }

    // x [n] -> bfloat16, `words` of them with zeros at the end
    static void round(uint32_t* to, const float* x, long n, long words) {
        copy_words<Bf16>(to, x, n);
        for (long w = words_of<Bf16>(n); w < words; w++) to[w] = 0;
    }

    // The embedding of a token as float32 in `to`, zeros after it. Quantizing and rounding may overwrite it from the
    // left: what is written there was read before.
    const float* embed(int64_t token, char* to) const {
        auto* x = reinterpret_cast<float*>(to);
        const long begin = token * m_.E;
        const StreamMatrix& from = m_.embedding;
        if (m_.weights == StreamWeights::float32 || m_.weights == StreamWeights::in_place) {
            memcpy(x, static_cast<const float*>(from.data) + begin, m_.E * 4);
        } else if (m_.weights == StreamWeights::bfloat16) {
            for (long k = 0; k < m_.E; k++) {
                uint32_t bits = uint32_t{static_cast<const uint16_t*>(from.data)[begin + k]} << 16;
                memcpy(x + k, &bits, 4);
            }
        } else {
            const auto* q = static_cast<const int8_t*>(from.data) + begin;
            for (long k = 0; k < m_.E; k++) x[k] = from.scale[token] * q[k];
        }
        for (long k = m_.E; k < at_.activation_bytes / 4; k++) x[k] = 0;
        return x;
    }
};

}  // namespace elman::ELMAN_ISA
