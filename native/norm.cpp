#include "norm.hpp"

#include <algorithm>

#include "threads.hpp"

namespace elman {

namespace {

constexpr long AHEAD = 2048;  // floats: the processor itself looks no further than a page

double block_sum(const float* x, long size) {
    float sums[NORM_SUMS] = {};
    long k = 0;
    for (; k + NORM_SUMS <= size; k += NORM_SUMS) {
        for (int line = 0; line < NORM_SUMS; line += 16) __builtin_prefetch(x + k + AHEAD + line);
        for (int i = 0; i < NORM_SUMS; i++) sums[i] += x[k + i] * x[k + i];
    }
    for (int i = 0; k < size; k++, i++) sums[i] += x[k] * x[k];
    double total = 0;
    for (float sum : sums) total += static_cast<double>(sum);
    return total;
}

}  // namespace

double sum_of_squares(const std::vector<std::pair<uintptr_t, long>>& arrays, int threads) {
    std::vector<std::pair<const float*, long>> blocks;
    for (const auto& [address, size] : arrays)
        for (long at = 0; at < size; at += NORM_BLOCK)
            blocks.emplace_back(reinterpret_cast<const float*>(address) + at, std::min(size - at, NORM_BLOCK));
    std::vector<double> sums(blocks.size());
    parallel(threads, [&](const Member& me) {
        const auto [begin, end] = me.share(static_cast<long>(blocks.size()));
        for (long b = begin; b < end; b++) {
            const auto& [data, size] = blocks[static_cast<size_t>(b)];
            sums[static_cast<size_t>(b)] = block_sum(data, size);
        }
    });
    double total = 0;
    for (double sum : sums) total += sum;
    return total;
}

}  // namespace elman
