// What the n-gram files share: the rows of one order while a model is estimated.
#pragma once

#include <array>
#include <vector>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "ngram.hpp"
#include "threads.hpp"

namespace elman {

// All that has been freed goes back to the system: otherwise the C library keeps a lot of it.
inline void give_back() {
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}
inline void give_back(std::vector<uint32_t>& column) {
    std::vector<uint32_t>().swap(column);
    give_back();
}

struct NgramCounts::Order {
    // Columns [rows], given back when they are no longer needed. At order 1 only `raw`.
    std::vector<uint32_t> word;
    std::vector<uint32_t> suffix;  // empty at order 2: it is the word
    std::vector<uint32_t> raw;     // occurrences, later adjusted counts
    std::vector<uint32_t> begins;  // [rows of the order below + 1]: where the n-grams with that prefix begin
    std::vector<uint32_t> left;    // where a cut-off holds: the row after pruning, or `pruned`; else empty
    int64_t rows = 0, kept = 0;    // before and after pruning
    int64_t initial = 0;           // rows from here on begin with `<s>`

    static constexpr uint32_t pruned = UINT32_MAX;

    const std::vector<uint32_t>& suffixes() const { return suffix.empty() ? word : suffix; }
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
