// The streaming step (streaming.hpp), one source for every instruction set.
//
// A window of T steps goes by chunks of S steps, N = S·B rows, at most WINDOW_ROWS. For each chunk and layer:
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

#include <cstdlib>
#include <new>

#include "gates.hpp"
#include "streaming_output.hpp"

namespace elman::ELMAN_ISA {

extern const StreamKernels stream_kernels;

namespace {

template <class Kind> class StreamSteps : StreamOutput<Kind> {
  public:
    using StreamOutput<Kind>::StreamOutput;

    void run() {
        for (long t = 0; t < call_.steps; t += at_.N / B) {
            first_ = t;
            steps_ = call_.steps - t < at_.N / B ? call_.steps - t : at_.N / B;
            for (long l = 0; l < m_.L; l++) layer(l);
            const bool last = t + steps_ == call_.steps;
            if (call_.nats) this->output(0, steps_ * B, last);
            else if (last && (call_.log_probs || call_.draw || call_.best))
                this->output((steps_ - 1) * B, B, last);
            else me_.wait();  // nobody begins to overwrite what another still reads
        }
    }

  private:
    using Base = StreamWorker<Kind>;
    using Base::at_, Base::B, Base::call_, Base::first_, Base::floats, Base::Hp, Base::inputs, Base::m_;
    using Base::me_, Base::own_, Base::own_scales_, Base::room_, Base::steps_, Base::turn_, Base::units_;

    void layer(long l) {
        const StreamPackedLayer& weights = m_.layer[static_cast<size_t>(l)];
        float* h = this->outputs(l);
        const long start = l * B * Hp, width = Hp * m_.gates;
        float* products = floats(at_.products);
        Activations x = inputs(l, 0, steps_ * B, weights.input);
        const float* before = floats(at_.h) + start;
        with_columns([&]<int C>() {
            this->for_panels(units_, turn_, [&](long panel) {
                const long at = panel * C * LANES;
                for_rows<Kind, C>(weights.input, panel, x, steps_ * B, room_, [&](long row, const Floats* v) {
                    for (int c = 0; c < C; c++)
                        store(products + row * width + at + c * LANES, v[c] + bias(weights, panel, c));
                });
            });
            for (long t = 0; t < steps_; t++) {
                const float* old = t ? h + t * B * Hp : before;
                Activations a{reinterpret_cast<const char*>(old), Hp * 4, nullptr};
                if constexpr (Kind::QUANTIZED) {
                    const long bytes = weights.recurrent.words * Kind::STEP;
                    for (long b = 0; b < B; b++)
                        own_scales_[b] =
                            quantize(reinterpret_cast<uint8_t*>(own_ + b * bytes), old + b * Hp, m_.H, bytes);
                    a = {own_, bytes, own_scales_};
                }
                this->for_panels(units_, turn_ + static_cast<unsigned>(t + first_), [&](long panel) {
                    const float* from = products + t * B * width + panel * C * LANES;
                    for_rows<Kind, C>(weights.recurrent, panel, a, B, room_, [&](long b, const Floats* v) {
                        const long unit = b * Hp + panel * m_.units;
                        step<C>(v, from + b * width, inner_bias(weights, panel), old + unit,
                                floats(at_.c) + start + unit, h + (B + t * B) * Hp + unit);
                    });
                    blank(panel, h + (B + t * B) * Hp);
                });
                me_.wait();
            }
        });
        // for the next chunk, and for the caller; the layer's next reading of it lies behind further barriers
        if (me_.index == 0) memcpy(floats(at_.h) + start, h + steps_ * B * Hp, B * Hp * 4);
    }

    Floats bias(const StreamPackedLayer& weights, long panel, int c) const {
        if constexpr (!Kind::IN_PLACE) return load(weights.bias + (panel * m_.columns + c) * LANES);
        const int lanes = weights.input.lanes(panel, c);
        const long row = weights.input.row(panel, c);
        Floats input = load_first(weights.bias_input + row, lanes);
        return m_.cell == StreamCell::gru && c == 2 ? input : input + load_first(weights.bias_recurrent + row, lanes);
    }
    Floats inner_bias(const StreamPackedLayer& weights, long panel) const {
        if constexpr (!Kind::IN_PLACE) return load(weights.inner + panel * m_.units);
        if (m_.cell != StreamCell::gru) return Floats{};
        const float* n = weights.bias_recurrent + 2 * m_.H;
        return load_first(n + panel * LANES, weights.recurrent.lanes(panel, 2));
    }
    // Units that are added stay zero: an infinite x makes them NaN, and where the next product reads them, so would be
    // all others.
    void blank(long panel, float* h) const {
        if ((panel + 1) * m_.units <= m_.H) return;
        for (long b = 0; b < B; b++) memset(h + b * Hp + m_.H, 0, static_cast<size_t>(Hp - m_.H) * sizeof *h);
    }
    template <class F> void with_columns(const F& f) const {
        if (m_.columns == 3) f.template operator()<3>();
        else f.template operator()<4>();
    }

    // One panel of one row: v[C] = W_hh h, p = W_ih x + b, gates in torch's order; writes h and c.
    template <int C>
    ELMAN_INLINE void gated(const Floats* v, const float* p, Floats inner, const float* old, float* c,
                            float* h) {
        if constexpr (C == 4) {
            Floats i = gate(v[0] + load(p)), f = gate(v[1] + load(p + LANES));
            Floats g = squash(v[2] + load(p + 2 * LANES)), o = gate(v[3] + load(p + 3 * LANES));
            Floats cell = f * load(c) + i * g;
            store(c, cell);
            store(h, o * squash(cell));
        } else {
            Floats r = gate(v[0] + load(p)), z = gate(v[1] + load(p + LANES));
            Floats n = squash(load(p + 2 * LANES) + r * (v[2] + inner));
            store(h, n + z * (load(old) - n));  // (1 - z) n + z h
        }
    }
    template <int C>
    void step(const Floats* v, const float* p, Floats inner, const float* old, float* c, float* h) const {
        if (m_.gates != 1) return gated<C>(v, p, inner, old, c, h);
        for (int u = 0; u < C; u++) {
            Floats a = v[u] + load(p + u * LANES);
            store(h + u * LANES, m_.cell == StreamCell::rnn_tanh ? squash(a) : a < 0.f ? Floats{} : a);
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
    const StreamScratch at(m, call, call.threads, (call.draw || call.best) && !call.log_probs);
    Workspace workspace(static_cast<size_t>(at.total));
    char* memory = workspace.as<char>();
    auto *h = reinterpret_cast<float*>(memory + at.h), *c = reinterpret_cast<float*>(memory + at.c);
    widen(h, call.h, m.L * call.batch, m.H, m.padded_h);
    widen(c, call.c, m.L * call.batch, m.H, m.padded_h);
    parallel(call.threads, [&](const Member& me) { StreamSteps<Kind>(m, call, at, memory, me).run(); });
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
    if (call.steps < 1 || call.batch < 1) return;
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
