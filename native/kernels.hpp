// What the kernels offer to bindings.cpp: plain structs of addresses and sizes, one table of functions per
// instruction set, and the choice among them.
//
// Axes, the rightmost fastest:
//   T steps, B batch, N = T·B rows, D input size, H hidden size, G gates, L layers, V vocabulary
//
// Everything here is float32 or bfloat16 with float32 sums. The caller allocates what is written and may
// alias nothing unless said; addresses may be unaligned unless said; a null pointer is allowed where said.
#pragma once

#include "output.hpp"
#include "recurrence.hpp"
#include "streaming.hpp"

namespace elman {

// A size at which some kernel takes another path: rows, columns, words, floats.
struct Boundary {
    const char* name;  // of the constant in the source
    long size;
};

struct Kernels {
    const char* name;  // "portable", "avx2", "avx512", "avx512_bf16"
    OutputKernels output;
    const StreamKernels* stream;
    RecurrenceKernels recurrence;
    double (*peak)(int threads, long rounds);  // GFLOP/s of float32 multiply-adds in registers
    const Boundary* boundaries;                // all there are, so that tests stand on both sides of each; size 0: the end
};

// The kernels in use: the best that this processor can run, unless `use` chose others.
const Kernels& kernels();
// Those of one name, or null.
const Kernels* find(const char* name);
// Chooses by name; false where this processor or this build has them not. "best" undoes the choice.
bool use(const char* name);
// Names that `use` accepts here, best first, null at the end.
const char* const* available();
// Whether bfloat16 products run faster than float32 ones here: not so on Intel's cores without AMX.
bool bf16_is_faster();

}  // namespace elman
