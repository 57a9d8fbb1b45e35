// The GRU, reset after the product, on LANES units of one row; the equations are those of src/elman/cells/gru.py.
#pragma once

#include "gates.hpp"

namespace elman::ELMAN_ISA {

struct Gru {
    static constexpr int GATES = 3, SLOTS = 4, SAVED = 4;  // r, z, n from x, and n from h: the reset gate comes between
    static constexpr int FROM_X[] = {0, 1, 2}, FROM_H[] = {0, 1, 3};
    static constexpr bool CELL = false, DIRECT = true;

    // a: the sums of the slots, `slot` floats apart. Returns h; saved: r, z, n and h_n.
    ELMAN_INLINE Floats forward(const float* a, long slot, Floats h_prev, Floats&, Floats* saved) {
        const Floats r = gate(load(a));         // r = sigmoid(x_r + h_r)
        const Floats z = gate(load(a + slot));  // z = sigmoid(x_z + h_z)
        const Floats h_n = load(a + 3 * slot);
        const Floats n = squash(load(a + 2 * slot) + r * h_n);  // n = tanh(x_n + r * h_n)
        saved[0] = r, saved[1] = z, saved[2] = n, saved[3] = h_n;
        return (1.f - z) * n + z * h_prev;  // h = (1 - z) * n + z * h_prev
    }

    // da [SLOTS]: of the sums; direct: of h_prev, but for what comes through the sums.
    ELMAN_INLINE void backward(const Floats* saved, Floats h_prev, Floats dh, Floats&, Floats* da, Floats& direct) {
        const Floats r = saved[0], z = saved[1], n = saved[2], h_n = saved[3];
        // forward: h = (1 - z) * n + z * h_prev
        direct = dh * z;
        const Floats dn = dh - direct, dz = dh * (h_prev - n);  // not dh (1 - z), which differs where dh is infinite
        // forward: n = tanh(x_n + r * h_n)
        da[2] = dn * (1.f - n * n);
        da[3] = da[2] * r;
        const Floats dr = da[2] * h_n;
        // forward: r = sigmoid(x_r + h_r), z = sigmoid(x_z + h_z)
        da[0] = dr * r * (1.f - r);
        da[1] = dz * z * (1.f - z);
    }
};

}  // namespace elman::ELMAN_ISA
