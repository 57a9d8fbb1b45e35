// The n-grams of a model in a hash table per order, for scoring long texts. Plain C++, portable, no SIMD.
//
// A context is the place of its n-gram: 4 · line + entry (of a single word: the word). The line at which the
// search for (context, word) begins differs for all words of one context, and further lines follow by leaps of the
// context's own, so context and number of steps say exactly which n-gram an entry holds: no collision can pass
// for a match.
#pragma once

#include <memory>

#include "ngram.hpp"

namespace elman {

class NgramIndex {
  public:
    // tables [order], order ≥ 2, keys checked by ngram_children; copies what it needs. Throws std::bad_alloc,
    // std::length_error when an order has too many rows.
    NgramIndex(const NgramTable* tables, const int64_t* rows, int order, int64_t vocabulary);
    ~NgramIndex();
    NgramIndex(const NgramIndex&) = delete;
    NgramIndex& operator=(const NgramIndex&) = delete;

    // As ngram_score, with the same results to the bit.
    void score(const NgramEvents& events, int threads) const;
    int64_t bytes() const;

  private:
    struct Format;
    struct Line;
    struct Order;
    struct Context;
    struct Lane;
    class Walk;
    bool fill(int n, const NgramTable& table, int64_t rows, uint64_t lines, std::vector<uint32_t>& places);

    int order_;
    int64_t vocabulary_;
    std::vector<float> log10_prob_, log10_backoff_;  // [V + 1], of single words
    std::vector<Order> orders_;                      // [order + 1]; those below 2 are empty
};

}  // namespace elman
