// From one row of logits [V] to tokens: the n most probable, or one drawn as generate.py draws.
#pragma once

#include <algorithm>
#include <cmath>

#include "streaming.hpp"
#include "vectors.hpp"
#include "workspace.hpp"

namespace elman::ELMAN_ISA {

struct Candidate {
    float logit;
    int32_t id;
};

struct Better {
    bool operator()(const Candidate& a, const Candidate& b) const {
        return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
    }
};
struct SmallerId {
    bool operator()(const Candidate& a, const Candidate& b) const { return a.id < b.id; }
};

ELMAN_INLINE bool any_above(Floats v, Floats limit) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask(__m512(v), __m512(limit), _CMP_GT_OQ) != 0;
#elif defined(__AVX2__)
    return _mm256_movemask_ps(__m256(v > limit)) != 0;
#else
    Ints above = v > limit;
    int32_t any = 0;
    for (int lane = 0; lane < LANES; lane++) any |= above[lane];
    return any != 0;
#endif
}

// The `most` best of the row without `excluded`, best first, ties by id; their number. NaN never counts.
// `to` has room for 2 · most + LANES.
inline long best_of(Candidate* to, const float* logits, long V, int64_t excluded, long most) {
    long count = 0;
    float limit = -__builtin_inff();  // of what is kept once `most` are known
    bool full = false;
    for (long at = 0; at < V; at += LANES) {
        const int lanes = V - at < LANES ? static_cast<int>(V - at) : LANES;
        if (full && lanes == LANES && !any_above(load(logits + at), broadcast(limit))) continue;
        for (int lane = 0; lane < lanes; lane++) {
            const float x = logits[at + lane];
            const auto id = static_cast<int32_t>(at + lane);
            if (id != excluded && (full ? x > limit : x == x)) to[count++] = {x, id};
        }
        if (count >= 2 * most) {
            std::nth_element(to, to + most - 1, to + count, Better());
            count = most, full = true, limit = to[most - 1].logit;
        }
    }
    std::sort(to, to + count, Better());
    return count < most ? count : most;
}

// The id where the running sum of weights first passes uniform · total, ids rising; never one of weight 0.
inline int64_t draw_among(const Candidate* kept, const float* weights, long count, double uniform) {
    double total = 0, running = 0;
    for (long i = 0; i < count; i++) total += weights[i];
    int64_t last = -1;
    for (long i = 0; i < count; i++) {
        running += weights[i];
        if (weights[i] > 0) last = kept[i].id;
        if (running > uniform * total) return last;
    }
    return last;
}

constexpr long DRAW_BLOCK = 32 * LANES;  // words whose weights are added up at a time
constexpr long CANDIDATES = 64;          // of top-p at first, then eight times as many

class Draw {
  public:
    Draw(const StreamDraw& how, long V)
        : how_(how), V(V), inverse_(static_cast<float>(1 / std::max(how.temperature, 1e-30))) {}

    // -1 where no token has a probability above zero. None is NaN or infinite.
    int64_t operator()(const float* logits, double uniform) const {
        Candidate room[16 + LANES];
        if (best_of(room, logits, V, how_.excluded, 1) == 0 || !std::isfinite(room[0].logit)) return -1;
        const Candidate first = room[0];
        if (how_.temperature == 0) return first.id;
        const bool all = how_.top_k == 0 || how_.top_k >= V;
        if (all && how_.top_p == 1) return among_all(logits, first.logit, uniform);
        double total = 0;  // of what top-k leaves
        if (all) total = sum(logits, first.logit, 0, V);
        for (long most = all ? CANDIDATES : how_.top_k;; most = std::min(V, most * 8)) {
            Workspace memory(static_cast<size_t>(2 * most + LANES) * (sizeof(Candidate) + sizeof(float)));
            auto* kept = memory.as<Candidate>();
            auto* weights = reinterpret_cast<float*>(kept + 2 * most + LANES);
            long count = best_of(kept, logits, V, how_.excluded, most);
            for (long i = 0; i < count; i++) weights[i] = weight(kept[i].logit, first.logit);
            if (!all) {
                total = 0;
                for (long i = 0; i < count; i++) total += weights[i];
            }
            double before = 0;  // a token stays while those above it fall short of p
            long stay = 0;
            while (stay < count && (how_.top_p == 1 || before < how_.top_p))
                before += weights[stay++] / total;
            if (all && stay == count && most < V) continue;  // p lies beyond these
            std::sort(kept, kept + stay, SmallerId());
            for (long i = 0; i < stay; i++) weights[i] = weight(kept[i].logit, first.logit);
            return draw_among(kept, weights, stay, uniform);
        }
    }

  private:
    const StreamDraw& how_;
    long V;
    float inverse_;  // of the temperature

    Floats weights(const float* logits, float most, long at) const {
        const bool all = at + LANES <= V && (how_.excluded < at || how_.excluded >= at + LANES);
        if (all) return exp((load(logits + at) - most) * inverse_);
        const int lanes = V - at < LANES ? static_cast<int>(V - at) : LANES;
        Floats w = exp((load_first(logits + at, lanes) - most) * inverse_);
        for (int lane = lanes; lane < LANES; lane++) w[lane] = 0;
        if (at <= how_.excluded && how_.excluded < at + LANES) w[how_.excluded - at] = 0;
        return w;
    }
    float weight(float logit, float most) const { return exp(broadcast((logit - most) * inverse_))[0]; }

    double sum(const float* logits, float most, long begin, long end) const {
        Floats total{};
        for (long at = begin; at < end; at += LANES) total += weights(logits, most, at);
        double all = 0;
        for (int lane = 0; lane < LANES; lane++) all += total[lane];
        return all;
    }

    int64_t among_all(const float* logits, float most, double uniform) const {
        const long blocks = (V + DRAW_BLOCK - 1) / DRAW_BLOCK;
        Workspace memory(static_cast<size_t>(blocks) * sizeof(double));
        auto* sums = memory.as<double>();
        double total = 0;
        for (long b = 0; b < blocks; b++)
            total += sums[b] = sum(logits, most, b * DRAW_BLOCK, std::min(V, (b + 1) * DRAW_BLOCK));
        const double point = uniform * total;
        double running = 0;
        long block = 0;
        while (block + 1 < blocks && running + sums[block] <= point) running += sums[block++];
        int64_t last = -1;
        for (long at = block * DRAW_BLOCK; at < V; at += LANES) {  // beyond it only by rounding
            Floats w = weights(logits, most, at);
            for (int lane = 0; lane < LANES; lane++) {
                running += w[lane];
                if (w[lane] > 0) last = at + lane;
                if (running > point && last >= 0) return last;
            }
        }
        return last >= 0 ? last : before(logits, most, block * DRAW_BLOCK);
    }

    int64_t before(const float* logits, float most, long end) const {  // the last with a weight above 0
        for (long at = end; (at -= LANES) >= 0;) {
            Floats w = weights(logits, most, at);
            for (int lane = LANES; lane-- > 0;)
                if (w[lane] > 0) return at + lane;
        }
        return -1;
    }
};

}  // namespace elman::ELMAN_ISA
