// sigmoid and tanh as the gates need them: five a unit and step, so one exponential and no branch or division each.
#pragma once

#include "vectors.hpp"

namespace elman::ELMAN_ISA {

// 1 / x, x >= 1 and finite; NaN stays NaN. 14 bits and one step of Newton, r (2 - x r): relative error 2^-23.
ELMAN_INLINE Floats reciprocal(Floats x) {
#if defined(__AVX512F__)
    Floats r = Floats(_mm512_maskz_rcp14_ps(0xffff, __m512(x)));
    return r + r * (1.f - x * r);
#else
    return 1.f / x;
#endif
}

// 1 / (1 + exp(-x)); below -87.4 it would be denormal and is 0, as far as denormals are flushed: a gate shut for good
// times an infinite state is then NaN, as it should be.
ELMAN_INLINE Floats gate(Floats x) {
    Exponential e = exponential(at_most(at_least(-x, -87.f), 88.3f));
    return reciprocal(1.f + e.power + e.power * e.p);
}

// (e - 1) / (e + 1), e = exp(2 x), with e - 1 = (2^k - 1) + 2^k p free of cancellation
ELMAN_INLINE Floats squash(Floats x) {
    Exponential e = exponential(at_most(at_least(2.f * x, -20.f), 20.f));  // tanh(10) is 1 in float32
    Floats difference = (e.power - 1.f) + e.power * e.p;
    return difference * reciprocal(difference + 2.f);
}

}  // namespace elman::ELMAN_ISA
