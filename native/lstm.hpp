// The LSTM on LANES units of one row; the equations are those of src/elman/cells/lstm.py.
#pragma once

#include "gates.hpp"

namespace elman::ELMAN_ISA {

struct Lstm {
    static constexpr int GATES = 4, SLOTS = 4, SAVED = 6;  // i, f, g, o; then c_prev and tanh(c)
    static constexpr int FROM_X[] = {0, 1, 2, 3}, FROM_H[] = {0, 1, 2, 3};
    static constexpr bool CELL = true, DIRECT = false;

    // a: the sums of the gates, `slot` floats apart, replaced by the gates. Returns h.
    ELMAN_INLINE Floats forward(float* a, long slot, Floats, Floats& c, Floats& tanh_c) {
        Floats i = gate(load(a));             // i = sigmoid(a_i)
        Floats f = gate(load(a + slot));      // f = sigmoid(a_f)
        Floats g = squash(load(a + 2 * slot));  // g = tanh(a_g)
        Floats o = gate(load(a + 3 * slot));  // o = sigmoid(a_o)
        c = f * c + i * g;                    // c = f * c_prev + i * g
        tanh_c = squash(c);
        store(a, i), store(a + slot, f), store(a + 2 * slot, g), store(a + 3 * slot, o);
        return o * tanh_c;  // h = o * tanh(c)
    }

    // dc: of the cell, replaced by that of the cell before. da [SLOTS]: of the sums.
    ELMAN_INLINE void backward(const float* a, long slot, Floats, Floats c_prev, Floats tanh_c, Floats dh, Floats& dc,
                               Floats* da, Floats&) {
        const Floats i = load(a), f = load(a + slot), g = load(a + 2 * slot), o = load(a + 3 * slot);
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
