#include "norm.hpp"

#include <algorithm>

#include "threads.hpp"

namespace elman {

namespace {

constexpr long BLOCK = 1 << 12;
constexpr long AHEAD = 2048;  // floats: the processor itself looks no further than a page
constexpr int SUMS = 32;  // partial sums: the additions of one would wait for each other

double block_sum(const float* x, long size) {
    float sums[SUMS] = {};
    long k = 0;
    for (; k + SUMS <= size; k += SUMS) {
        for (int line = 0; line < SUMS; line += 16) __builtin_prefetch(x + k + AHEAD + line);
        for (int i = 0; i < SUMS; i++) sums[i] += x[k + i] * x[k + i];
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
        for (long at = 0; at < size; at += BLOCK)
            blocks.emplace_back(reinterpret_cast<const float*>(address) + at, std::min(size - at, BLOCK));
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
