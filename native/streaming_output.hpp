// The output layer of a streaming call: the softmax summed while the products are made, and choices from it.
//
// Every second call goes backward through the panels, which must not show in the sums: with few rows those of each panel
// are kept apart and added up in order; with many rows the panels are used for all of them and always go forward.
#pragma once

#include <cmath>

#include "softmax.hpp"
#include "streaming_draw.hpp"
#include "streaming_worker.hpp"

namespace elman::ELMAN_ISA {

template <class Kind> class StreamOutput : protected StreamWorker<Kind> {
  public:
    using StreamWorker<Kind>::StreamWorker;

  protected:
    using Base = StreamWorker<Kind>;
    using Base::at_, Base::B, Base::call_, Base::first_, Base::floats, Base::inputs, Base::m_, Base::me_;
    using Base::own_sums_, Base::room_, Base::steps_, Base::turn_, Base::words_;

    // Over rows [first, first + count) of the chunk; with `last`, also what is asked for after the window.
    void output(long first, long count, bool last) {
        const long V = m_.V;
        const bool choose = last && (call_.draw || call_.best), keep = last && (call_.log_probs || choose);
        float* logits = call_.log_probs ? call_.log_probs : floats(at_.logits);
        float* of_target = floats(at_.targets);
        const int64_t* targets = call_.nats ? call_.targets + first_ * B + first : nullptr;
        Activations x = inputs(m_.L, first, count, m_.output);
        // of each row, if they are few of each panel and row: shift [LANES], Σ exp(l - shift) [LANES]
        float* sums = own_sums_;
        const bool apart = count <= FEW_INPUTS;
        const long panels = words_.end - words_.begin, kept = apart && panels ? panels * count : count;
        for (long row = 0; row < kept; row++) {
            store(sums + row * 2 * LANES, broadcast(LOWEST));
            store(sums + row * 2 * LANES + LANES, Floats{});
        }
        this->for_panels(words_, apart ? turn_ : 0, [&](long panel) {
            const long at = panel * 4 * LANES;
            float* of_panel = sums + (apart ? (panel - words_.begin) * count * 2 * LANES : 0);
            for_rows<Kind, 4>(m_.output, panel, x, count, room_, [&](long row, const Floats* v) {
                float* own = of_panel + row * 2 * LANES;
                Floats l[4], shift = load(own), sum = load(own + LANES);
                for (int c = 0; c < 4; c++) l[c] = v[c] + output_bias(panel, c);
                Floats most = max(max(l[0], l[1]), max(l[2], l[3]));
                if (any_above(most, shift + SLACK)) {
                    Floats higher = max(shift, most);
                    sum *= exp(shift - higher);
                    shift = higher;
                    store(own, shift);
                }
                Floats low = exp(l[0] - shift) + exp(l[1] - shift);
                Floats high = exp(l[2] - shift) + exp(l[3] - shift);
                store(own + LANES, sum + (low + high));
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
            float* own = sums + row * 2 * LANES;
            if (apart) add_panels(own, panels, count * 2 * LANES);
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
                call_.nats[first_ * B + first + row] = static_cast<float>(log_z(row).below(of_target[row]));
        }
        const long skipped = (steps_ - 1) * B - first;  // rows before those of the last step
        if (choose) {
            choices(logits, skipped);
            if (call_.log_probs) me_.wait();
        }
        if (last && call_.log_probs) {
            const long begin = words_.begin * 4 * LANES, over = words_.end * 4 * LANES;
            const long end = over < V ? over : V;
            for (long b = 0; b < B; b++) {
                const LogZ all = log_z(skipped + b);
                const auto top = static_cast<float>(all.top), less = static_cast<float>(all.log_z);
                float* row = logits + b * V;
                for (long v = begin; v < end; v += LANES) {
                    const int lanes = end - v < LANES ? static_cast<int>(end - v) : LANES;
                    if (lanes == LANES) store(row + v, load(row + v) - top - less);
                    else store_first(row + v, load_first(row + v, lanes) - top - less, lanes);
                }
            }
        }
        if (targets && !last) me_.wait();  // the sums are read before the next chunk writes them
    }

  private:
    // What `panels` of them say of a row, `next` floats apart, in their order -> the first one's place
    static void add_panels(float* own, long panels, long next) {
        Floats shift = load(own), sum{};
        for (long panel = 1; panel < panels; panel++) shift = max(shift, load(own + panel * next));
        for (long panel = 0; panel < panels; panel++) {
            const float* one = own + panel * next;
            sum += load(one + LANES) * exp(load(one) - shift);
        }
        store(own, shift);
        store(own + LANES, sum);
    }

    Floats output_bias(long panel, int c) const {
        const long at = (panel * 4 + c) * LANES;
        if constexpr (!Kind::IN_PLACE) return load(m_.output_bias + at);
        const int lanes = m_.output.lanes(panel, c);
        if (lanes == LANES) return load(m_.output_bias + at);
        Floats bias = broadcast(-__builtin_inff());
        for (int lane = 0; lane < lanes; lane++) bias[lane] = m_.output_bias[at + lane];
        return bias;
    }

    // log Z = log Σ_v exp(logit), of all threads, in two parts
    struct LogZ {
        double top, log_z;
        double below(float logit) const { return top - logit + log_z; }  // log Z - logit
        bool finite() const { return std::isfinite(top) && std::isfinite(log_z); }
    };
    LogZ log_z(long row) const {
        const float* all = floats(at_.sums) + row * 2;
        const long next = at_.N * 2;  // to the same row's sums of the next thread
        double most = all[0], sum = 0;
        for (int i = 1; i < me_.count; i++) most = all[i * next] > most ? all[i * next] : most;
        for (int i = 0; i < me_.count; i++) sum += all[i * next + 1] * std::exp(all[i * next] - most);
        return {most, std::log(sum)};
    }

    void choices(const float* logits, long skipped) const {
        Member::Share rows = me_.share(B);
        for (long b = rows.begin; b < rows.end; b++) {
            const float* row = logits + b * m_.V;
            const LogZ all = log_z(skipped + b);
            if (call_.draw) {
                const StreamDraw& draw = *call_.draw;
                const int64_t token = all.finite() ? Draw(draw, m_.V)(row, draw.uniform[b]) : -1;
                draw.tokens[b] = token;
                draw.nats[b] = token < 0 ? 0.f : static_cast<float>(all.below(row[token]));
            }
            if (call_.best) {
                Workspace memory(static_cast<size_t>(2 * call_.best + LANES) * sizeof(Candidate));
                auto* found = memory.as<Candidate>();
                const long count = best_of(found, row, m_.V, -1, call_.best);
                for (long i = 0; i < call_.best; i++) {
                    const bool there = i < count;
                    call_.best_tokens[b * call_.best + i] = there ? found[i].id : -1;
                    call_.best_log_probs[b * call_.best + i] =
                        there ? static_cast<float>(-all.below(found[i].logit)) : -__builtin_inff();
                }
            }
        }
    }
};

}  // namespace elman::ELMAN_ISA
