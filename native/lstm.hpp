// The LSTM on LANES units of one row; the equations are those of src/elman/cells/lstm.py.
#pragma once

#include "gates.hpp"

namespace elman::ELMAN_ISA {

struct Lstm {
    static constexpr int GATES = 4, SLOTS = 4, SAVED = 6;  // i, f, g, o; then c_prev and tanh(c)
    static constexpr int FROM_X[] = {0, 1, 2, 3}, FROM_H[] = {0, 1, 2, 3};
    static constexpr bool CELL = true, DIRECT = false;

    // a: the sums of the gates, `slot` floats apart; c: of the step before, replaced. Returns h; saved: for backward.
    ELMAN_INLINE Floats forward(const float* a, long slot, Floats, Floats& c, Floats* saved) {
        const Floats i = gate(load(a));             // i = sigmoid(a_i)
        const Floats f = gate(load(a + slot));      // f = sigmoid(a_f)
        const Floats g = squash(load(a + 2 * slot));  // g = tanh(a_g)
        const Floats o = gate(load(a + 3 * slot));  // o = sigmoid(a_o)
        saved[0] = i, saved[1] = f, saved[2] = g, saved[3] = o, saved[4] = c;
        c = f * c + i * g;      // c = f * c_prev + i * g
        saved[5] = squash(c);
        return o * saved[5];  // h = o * tanh(c)
    }

    // dc: of the cell, replaced by that of the cell before. da [SLOTS]: of the sums.
    ELMAN_INLINE void backward(const Floats* saved, Floats, Floats dh, Floats& dc, Floats* da, Floats&) {
        const Floats i = saved[0], f = saved[1], g = saved[2], o = saved[3], c_prev = saved[4], tanh_c = saved[5];
        // forward: h = o * tanh(c)
        const Floats d_o = dh * tanh_c;
        dc = dc + dh * o * (1.f - tanh_c * tanh_c);
        // forward: c = f * c_prev + i * g
        const Floats df = dc * c_prev, di = dc * g, dg = dc * i;
        dc = dc * f;
        // forward: i = sigmoid(a_i), f = sigmoid(a_f), g = tanh(a_g), o = sigmoid(a_o)
        da[0] = di * i * (1.f - i);
        da[1] = df * f * (1.f - f);
        da[2] = dg * (1.f - g * g);
        da[3] = d_o * o * (1.f - o);
    }
};

}  // namespace elman::ELMAN_ISA
