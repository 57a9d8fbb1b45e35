// The sum of squares over several arrays, as the norm of a gradient needs it.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace elman {

constexpr long NORM_BLOCK = 1 << 12;  // floats
constexpr int NORM_SUMS = 32;  // partial sums: the additions of one would wait for each other

// Σ x² over all arrays, each given as the address of its floats and their number: float32 within blocks of a few
// thousand, float64 over the blocks, in the same order for any number of threads. Infinite where a block's sum leaves
// float32, NaN where any x is.
double sum_of_squares(const std::vector<std::pair<uintptr_t, long>>& arrays, int threads);

}  // namespace elman
