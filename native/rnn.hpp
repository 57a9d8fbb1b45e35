// The simple recurrent network on LANES units of one row; the equations are those of src/elman/cells/rnn.py.
#pragma once

#include "gates.hpp"

namespace elman::ELMAN_ISA {

template <bool RELU> struct Rnn {
    static constexpr int GATES = 1, SLOTS = 1, SAVED = 1;
    static constexpr int FROM_X[] = {0}, FROM_H[] = {0};
    static constexpr bool CELL = false, DIRECT = false;

    // a: the sum. Returns h; saved: h.
    ELMAN_INLINE Floats forward(const float* a, long, Floats, Floats&, Floats* saved) {
        const Floats sum = load(a);
        saved[0] = RELU ? (sum < 0.f ? Floats{} : sum) : squash(sum);  // h = tanh(a) or relu(a); NaN stays
        return saved[0];
    }

    ELMAN_INLINE void backward(const Floats* saved, Floats, Floats dh, Floats&, Floats* da, Floats&) {
        const Floats h = saved[0];
        // forward: h = tanh(a) or h = relu(a), whose slope is taken as 0 at a = 0 and as 1 where a is NaN, as in torch
        da[0] = RELU ? (h <= 0.f ? Floats{} : dh) : dh * (1.f - h * h);
    }
};

}  // namespace elman::ELMAN_ISA
