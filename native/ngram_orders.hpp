// What the n-gram files share: the rows of one order while a model is estimated.
#pragma once

#include <array>
#include <vector>

#include "ngram.hpp"
#include "threads.hpp"

namespace elman {

struct NgramCounts::Order {
    // [rows]; at order 1 only `raw`
    std::vector<uint32_t> prefix, word, suffix;
    std::vector<uint32_t> raw;   // occurrences, later adjusted counts
    std::vector<uint32_t> left;  // where a cut-off holds: the row after pruning, or `pruned`; else empty
    int64_t initial = 0;         // rows from here on begin with `<s>`
    int64_t kept = 0;

    static constexpr uint32_t pruned = UINT32_MAX;

    void resize(int64_t rows) {
        for (auto* column : {&prefix, &word, &suffix, &raw}) column->resize(rows);
    }
    // The row after pruning.
    uint32_t now(uint32_t row) const { return left.empty() ? row : left[row]; }
};

// f(0) … f(count - 1), on as many threads.
template <class F> void each(int count, const F& f) {
    parallel(count, [&](const Member& member) {
        for (int index = member.index; index < count; index += member.count) f(index);
    });
}

}  // namespace elman
