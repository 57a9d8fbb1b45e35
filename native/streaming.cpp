// The streaming step (streaming.hpp), one source for every instruction set.
//
// A window of T steps goes by chunks of S steps, N = S·B rows, at most MOST rows. For each chunk and layer:
//
//   inputs    the rows that the layer reads (embedding, or the h of the layer below), quantized for int8
//   products  P = W_ih x + b for all N rows at once
//   steps     for each step: P[t] + W_hh h, the cell's equations, a barrier: the next step reads all of h
//
// and then the output layer over N rows with its softmax summed on the way, so that no logits are kept unless
// asked for. Panels are divided among the threads once for all of this: a thread computes P for its own units
// only and needs no barrier between products and steps. With T = 1 there are L + 1 barriers in a token.
//
// Every second step goes through a thread's panels backward: what was read last is still in the cache
// when it is read first (a matrix twice as large as the cache then misses half as often).
#include "streaming.hpp"

#include <cmath>
#include <cstdlib>
#include <new>

#include "streaming_draw.hpp"
#include "streaming_model.hpp"
#include "threads.hpp"

namespace elman::ELMAN_ISA {

extern const StreamKernels stream_kernels;

namespace {

constexpr long MOST = 256;   // rows of a chunk
constexpr long FEW = 8;      // rows that every thread prepares for itself: cheaper than a barrier
constexpr float SLACK = 20;  // of the running softmax: exp(20) is far from overflow, and so are its sums

// Scratch of one call; counted and laid out once.
struct Scratch {
    long N, activation_bytes, private_bytes, total = 0;
    long h, c, inputs, input_scales, outputs[2], products, targets, sums, logits, own;

    Scratch(const StreamPacked& m, const StreamCall& call, int threads, bool keep_logits) {
        const long B = call.batch, steps = MOST / B < 1 ? 1 : MOST / B < call.steps ? MOST / B : call.steps;
        N = steps * B;
        const long floats = round_up(m.E > m.H ? m.E : m.H, 4 * LANES);
        activation_bytes = floats * 4;
        h = part(m.L * B * m.padded_h * 4), c = part(m.L * B * m.padded_h * 4);
        inputs = part(N * activation_bytes), input_scales = part(N * 4);
        for (long& one : outputs) one = part((N + B) * m.padded_h * 4);
        products = part(N * m.padded_h * m.gates * 4);
        targets = part(N * 4);
        sums = part(threads * N * 2 * 4);
        logits = part(keep_logits ? B * m.V * 4 : 0);
        // a thread's own: the rows of a few inputs, their scales; the rows of a step, quantized; softmax sums; a panel of products
        const long few = FEW > B ? FEW : B;
        private_bytes = round_up(few * activation_bytes + few * 4, 64) + N * 2 * VECTOR + N * 4 * VECTOR;
        own = part(threads * private_bytes);
    }

  private:
    long part(long bytes) {
        long at = total;
        total = round_up(total + bytes, 64);
        return at;
    }
};

template <class Kind> class Worker {
  public:
    Worker(const StreamPacked& model, const StreamCall& call, const Scratch& at, char* memory, const Member& me)
        : m_(model), call_(call), at_(at), memory_(memory), me_(me), B(call.batch), Hp(model.padded_h),
          own_(memory + at.own + me.index * at.private_bytes),
          own_scales_(reinterpret_cast<float*>(own_ + (FEW > B ? FEW : B) * at.activation_bytes)),
          own_sums_(own_ + round_up((FEW > B ? FEW : B) * (at.activation_bytes + 4), 64)),
          room_(reinterpret_cast<float*>(own_sums_ + at.N * 2 * VECTOR)),
          units_(me.share(model.padded_h / model.units)), words_(me.share(model.output.panels)),
          turn_(model.turn.load(std::memory_order_relaxed)) {}

    void run() {
        for (long t = 0; t < call_.steps; t += at_.N / B) {
            first_ = t;
            steps_ = call_.steps - t < at_.N / B ? call_.steps - t : at_.N / B;
            for (long l = 0; l < m_.L; l++) layer(l);
            const bool last = t + steps_ == call_.steps;
            if (call_.nats) output(0, steps_ * B, last);
            else if (last && (call_.log_probs || call_.draw || call_.best)) output((steps_ - 1) * B, B, last);
            else me_.wait();  // nobody begins to overwrite what another still reads
        }
    }

  private:
    const StreamPacked& m_;
    const StreamCall& call_;
    const Scratch& at_;
    char* memory_;
    const Member& me_;
    const long B, Hp;
    char* own_;
    float* own_scales_;
    char* own_sums_;
    float* room_;
    Member::Share units_, words_;
    unsigned turn_;
    long first_ = 0, steps_ = 0;

    float* floats(long at) const { return reinterpret_cast<float*>(memory_ + at); }
    float* outputs(long l) const { return floats(at_.outputs[l & 1]); }  // [B + N, Hp]: h before, then of each step

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
        if (!Kind::QUANTIZED && l) return {reinterpret_cast<const char*>(below), Hp * 4, nullptr};
        const bool few = count <= FEW;
        char* to = few ? own_ : memory_ + at_.inputs;
        float* scales = few ? own_scales_ : floats(at_.input_scales);
        Member::Share rows = few ? Member::Share{0, count} : me_.share(count);
        for (long row = rows.begin; row < rows.end; row++) {
            char* target = to + row * at_.activation_bytes;
            const float* x = below + row * Hp;
            if (l == 0) x = embed(call_.tokens[first_ * B + first + row], target);
            if constexpr (Kind::QUANTIZED)
                scales[row] = quantize(reinterpret_cast<uint8_t*>(target), x, l ? m_.H : m_.E, width);
        }
        if (!few) me_.wait();
        return {to, at_.activation_bytes, scales};
    }

    // The embedding of a token as float32 in `to`, zeros after it. Quantizing may overwrite it from the left:
    // byte k is written after float k was read.
    const float* embed(int64_t token, char* to) const {
        auto* x = reinterpret_cast<float*>(to);
        const long begin = token * m_.E;
        const StreamMatrix& from = m_.embedding;
        if (m_.weights == StreamWeights::float32 || m_.weights == StreamWeights::in_place) {
            memcpy(x, static_cast<const float*>(from.data) + begin, m_.E * 4);
        } else if (m_.weights == StreamWeights::bfloat16) {
            for (long k = 0; k < m_.E; k++) {
                uint32_t bits = static_cast<uint32_t>(static_cast<const uint16_t*>(from.data)[begin + k]) << 16;
                memcpy(x + k, &bits, 4);
            }
        } else {
            for (long k = 0; k < m_.E; k++) x[k] = from.scale[token] * static_cast<const int8_t*>(from.data)[begin + k];
        }
        for (long k = m_.E; k < at_.activation_bytes / 4; k++) x[k] = 0;
        return x;
    }

    void layer(long l) {
        const StreamPackedLayer& weights = m_.layer[l];
        float* h = outputs(l);
        const long start = l * B * Hp, width = Hp * m_.gates;
        float* products = floats(at_.products);
        Activations x = inputs(l, 0, steps_ * B, weights.input);
        // h before: written by everybody where it is the same few rows, or the others might not see it in time
        const float* before = floats(at_.h) + start;
        with_columns([&]<int C>() {
            for_panels(units_, turn_, [&](long panel) {
                const long at = panel * C * LANES;
                for_rows<Kind, C>(weights.input, panel, x, steps_ * B, room_, [&](long row, const Floats* v) {
                    for (int c = 0; c < C; c++)
                        store(products + row * width + at + c * LANES, v[c] + gate_bias(weights, panel, c, C == 3));
                });
            });
            for (long t = 0; t < steps_; t++) {
                const float* old = t ? h + t * B * Hp : before;
                Activations a{reinterpret_cast<const char*>(old), Hp * 4, nullptr};
                if constexpr (Kind::QUANTIZED) {
                    const long bytes = weights.recurrent.words * Kind::STEP;
                    for (long b = 0; b < B; b++)
                        own_scales_[b] = quantize(reinterpret_cast<uint8_t*>(own_ + b * bytes), old + b * Hp, m_.H, bytes);
                    a = {own_, bytes, own_scales_};
                }
                for_panels(units_, turn_ + static_cast<unsigned>(t + first_), [&](long panel) {
                    const float* from = products + t * B * width + panel * C * LANES;
                    for_rows<Kind, C>(weights.recurrent, panel, a, B, room_, [&](long b, const Floats* v) {
                        const long unit = b * Hp + panel * m_.units;
                        step<C>(v, from + b * width, inner_bias(weights, panel), old + unit,
                                floats(at_.c) + start + unit, h + (B + t * B) * Hp + unit);
                    });
                });
                me_.wait();
            }
        });
        // for the next chunk, and for the caller; the layer's next reading of it lies behind further barriers
        if (me_.index == 0) memcpy(floats(at_.h) + start, h + steps_ * B * Hp, B * Hp * 4);
    }

    ELMAN_INLINE Floats gate_bias(const StreamPackedLayer& weights, long panel, int c, bool gru) {
        if constexpr (!Kind::IN_PLACE) return load(weights.bias + (panel * weights.input.columns + c) * LANES);
        const int lanes = weights.input.lanes(panel, c);
        const long row = weights.input.row(panel, c);
        Floats bias = load_first(weights.bias_input + row, lanes);
        return gru && c == 2 ? bias : bias + load_first(weights.bias_recurrent + row, lanes);
    }
    Floats inner_bias(const StreamPackedLayer& weights, long panel) const {
        if constexpr (!Kind::IN_PLACE) return load(weights.inner + panel * m_.units);
        if (m_.gates != 3) return Floats{};
        return load_first(weights.bias_recurrent + 2 * m_.H + panel * LANES, weights.recurrent.lanes(panel, 2));
    }
    Floats output_bias(long panel, int c) const {
        const long at = (panel * 4 + c) * LANES;
        if constexpr (!Kind::IN_PLACE) return load(m_.output_bias + at);
        const int lanes = m_.output.lanes(panel, c);
        if (lanes == LANES) return load(m_.output_bias + at);
        Floats bias = broadcast(-1e30f);
        for (int lane = 0; lane < lanes; lane++) bias[lane] = m_.output_bias[at + lane];
        return bias;
    }

    template <class F> void with_columns(const F& f) const {
        if (m_.columns == 3) f.template operator()<3>();
        else f.template operator()<4>();
    }

    // One panel of one row: v[C] = W_hh h, p = W_ih x + b, gates in torch's order; writes h and c.
    template <int C>
    ELMAN_INLINE void step_lstm_gru(const Floats* v, const float* p, Floats inner, const float* old, float* c, float* h) {
        if constexpr (C == 4) {
            Floats i = sigmoid(v[0] + load(p)), f = sigmoid(v[1] + load(p + LANES));
            Floats g = tanh(v[2] + load(p + 2 * LANES)), o = sigmoid(v[3] + load(p + 3 * LANES));
            Floats cell = f * load(c) + i * g;
            store(c, cell);
            store(h, o * tanh(cell));
        } else {
            Floats r = sigmoid(v[0] + load(p)), z = sigmoid(v[1] + load(p + LANES));
            Floats n = tanh(load(p + 2 * LANES) + r * (v[2] + inner));
            store(h, n + z * (load(old) - n));  // (1 - z) n + z h
        }
    }
    template <int C>
    void step(const Floats* v, const float* p, Floats inner, const float* old, float* c, float* h) const {
        if (m_.gates != 1) return step_lstm_gru<C>(v, p, inner, old, c, h);
        for (int u = 0; u < C; u++) {
            Floats a = v[u] + load(p + u * LANES);
            store(h + u * LANES, m_.cell == StreamCell::rnn_tanh ? tanh(a) : a < 0.f ? Floats{} : a);
        }
    }

    // Output layer over rows [first, first + count) of the chunk; with `last`, what is asked for after the window.
    void output(long first, long count, bool last) {
        const long V = m_.V;
        const bool choose = last && (call_.draw || call_.best), keep = last && (call_.log_probs || choose);
        float* logits = call_.log_probs ? call_.log_probs : floats(at_.logits);
        float* of_target = floats(at_.targets);
        const int64_t* targets = call_.nats ? call_.targets + first_ * B + first : nullptr;
        Activations x = inputs(m_.L, first, count, m_.output);
        auto sums = reinterpret_cast<float*>(own_sums_);  // of each row: shift [LANES], Σ exp(l - shift) [LANES]
        for (long row = 0; row < count; row++) {
            store(sums + row * 2 * LANES, broadcast(-1e38f));
            store(sums + row * 2 * LANES + LANES, Floats{});
        }
        for_panels(words_, turn_, [&](long panel) {
            const long at = panel * 4 * LANES;
            for_rows<Kind, 4>(m_.output, panel, x, count, room_, [&](long row, const Floats* v) {
                float* own = sums + row * 2 * LANES;
                Floats l[4], shift = load(own), sum = load(own + LANES);
                for (int c = 0; c < 4; c++) l[c] = v[c] + output_bias(panel, c);
                Floats most = max(max(l[0], l[1]), max(l[2], l[3]));
                if (any_above(most, shift + SLACK)) {
                    Floats higher = max(shift, most);
                    sum *= exp(shift - higher);
                    shift = higher;
                    store(own, shift);
                }
                store(own + LANES, sum + ((exp(l[0] - shift) + exp(l[1] - shift)) + (exp(l[2] - shift) + exp(l[3] - shift))));
                if (targets && targets[row] >= at && targets[row] < at + 4 * LANES)
                    of_target[row] = l[(targets[row] - at) / LANES][(targets[row] - at) % LANES];
                if (keep && first + row >= (steps_ - 1) * B) {
                    float* to = logits + (first + row - (steps_ - 1) * B) * V + at;
                    for (int c = 0; c < 4; c++) {
                        const long left = V - at - c * LANES;
                        if (left >= LANES) store(to + c * LANES, l[c]);
                        else if (left > 0) store_first(to + c * LANES, l[c], static_cast<int>(left));
                    }
                }
            });
        });
        float* all = floats(at_.sums);  // [threads][N][2]
        for (long row = 0; row < count; row++) {
            const float* own = sums + row * 2 * LANES;
            float most = own[0], sum = 0;
            for (int lane = 1; lane < LANES; lane++) most = own[lane] > most ? own[lane] : most;
            Floats parts = load(own + LANES) * exp(load(own) - most);
            for (int lane = 0; lane < LANES; lane++) sum += parts[lane];
            float* to = all + (me_.index * at_.N + row) * 2;
            to[0] = most, to[1] = sum;
        }
        me_.wait();
        if (targets) {
            Member::Share rows = me_.share(count);
            for (long row = rows.begin; row < rows.end; row++)
                call_.nats[first_ * B + first + row] = static_cast<float>(log_sum(row) - of_target[row]);
        }
        const long skipped = (steps_ - 1) * B - first;  // rows before those of the last step
        if (choose) {
            choices(logits, skipped);
            if (call_.log_probs) me_.wait();
        }
        if (last && call_.log_probs) {
            const long begin = words_.begin * 4 * LANES, end = words_.end * 4 * LANES < V ? words_.end * 4 * LANES : V;
            for (long b = 0; b < B; b++) {
                const float less = static_cast<float>(log_sum(skipped + b));
                float* row = logits + b * V;
                for (long v = begin; v < end; v += LANES) {
                    if (end - v >= LANES) store(row + v, load(row + v) - less);
                    else store_first(row + v, load_first(row + v, static_cast<int>(end - v)) - less, static_cast<int>(end - v));
                }
            }
        }
        if (targets && !last) me_.wait();  // the sums are read before the next chunk writes them
    }

    // log Σ_v exp(logit), of all threads
    double log_sum(long row) const {
        const float* all = floats(at_.sums) + row * 2;
        double most = all[0], sum = 0;
        for (int i = 1; i < me_.count; i++) most = all[i * at_.N * 2] > most ? all[i * at_.N * 2] : most;
        for (int i = 0; i < me_.count; i++) sum += all[i * at_.N * 2 + 1] * std::exp(all[i * at_.N * 2] - most);
        return most + std::log(sum);
    }

    void choices(const float* logits, long skipped) const {
        Member::Share rows = me_.share(B);
        for (long b = rows.begin; b < rows.end; b++) {
            const float* row = logits + b * m_.V;
            const double less = log_sum(skipped + b);
            if (call_.draw) {
                const StreamDraw& draw = *call_.draw;
                const int64_t token = Draw(draw, m_.V)(row, less, draw.uniform ? draw.uniform[b] : 0.);
                draw.tokens[b] = token;
                draw.nats[b] = token < 0 ? 0.f : static_cast<float>(less - row[token]);
            }
            if (call_.best) {
                Workspace memory(static_cast<size_t>(2 * call_.best + LANES) * sizeof(Candidate));
                auto* found = memory.as<Candidate>();
                const long count = best_of(found, row, m_.V, -1, call_.best);
                for (long i = 0; i < call_.best; i++) {
                    call_.best_tokens[b * call_.best + i] = i < count ? found[i].id : -1;
                    call_.best_log_probs[b * call_.best + i] = i < count ? static_cast<float>(found[i].logit - less) : -__builtin_inff();
                }
            }
        }
    }
};

// [L, B, H] <-> [L, B, Hp]
void widen(float* to, const float* from, long rows, long H, long Hp) {
    for (long row = 0; row < rows; row++) {
        if (from) memcpy(to + row * Hp, from + row * H, H * 4);
        const long begin = from ? H : 0;
        for (long k = begin; k < Hp; k++) to[row * Hp + k] = 0;
    }
}
void narrow(float* to, const float* from, long rows, long H, long Hp) {
    for (long row = 0; row < rows; row++) memcpy(to + row * H, from + row * Hp, H * 4);
}

template <class Kind> void run_kind(const StreamPacked& m, const StreamCall& call) {
    const Scratch at(m, call, call.threads, (call.draw || call.best) && !call.log_probs);
    Workspace workspace(static_cast<size_t>(at.total));
    char* memory = workspace.as<char>();
    auto *h = reinterpret_cast<float*>(memory + at.h), *c = reinterpret_cast<float*>(memory + at.c);
    widen(h, call.h, m.L * call.batch, m.H, m.padded_h);
    widen(c, call.c, m.L * call.batch, m.H, m.padded_h);
    parallel(call.threads, [&](const Member& me) { Worker<Kind>(m, call, at, memory, me).run(); });
    narrow(call.h_after, h, m.L * call.batch, m.H, m.padded_h);
    if (call.c_after) narrow(call.c_after, c, m.L * call.batch, m.H, m.padded_h);
    m.turn.fetch_add(1, std::memory_order_relaxed);
}

StreamModel* pack(const StreamSource& source) {
    auto* model = new StreamPacked(source);
    model->kernels = &stream_kernels;
    return model;
}

void run(const StreamModel& model, const StreamCall& call) {
    const auto& m = static_cast<const StreamPacked&>(model);
    switch (m.weights) {
        case StreamWeights::float32: return run_kind<StreamFloat32>(m, call);
        case StreamWeights::bfloat16: return run_kind<StreamBfloat16>(m, call);
        case StreamWeights::int8: return run_kind<StreamInt8>(m, call);
        case StreamWeights::in_place: return run_kind<StreamInPlace>(m, call);
    }
}

void release(StreamModel* model) { delete static_cast<StreamPacked*>(model); }

}  // namespace

const StreamKernels stream_kernels{pack, run, release};

}  // namespace elman::ELMAN_ISA
