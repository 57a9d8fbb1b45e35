// The n-grams of a model by their contexts, for scoring long texts. Plain C++, portable, no SIMD beyond SSE2.
//
// A context holds its backoff weight, a link to the longest listed context that is a proper end of it, and the
// words listed after it, each with its probability and the context that it leads to: so one line of the cache
// answers a lookup, says where the next one goes, and what the word costs that is not there.
#pragma once

#include <cstdlib>
#include <memory>

#include "ngram.hpp"

namespace elman {

class NgramIndex {
  public:
    // tables [order], order ≥ 2, keys checked by ngram_children; copies what it needs. Throws std::bad_alloc,
    // std::length_error when there are too many n-grams.
    NgramIndex(const NgramTable* tables, const int64_t* rows, int order, int64_t vocabulary);
    ~NgramIndex();
    NgramIndex(const NgramIndex&) = delete;
    NgramIndex& operator=(const NgramIndex&) = delete;

    // As ngram_score, with the same results to the bit.
    void score(const NgramEvents& events, int threads) const;
    int64_t bytes() const;

  private:
    struct Form;
    struct Forms;
    struct Line;
    struct Lines;
    template <int Contexts, bool Lengths> class Walk;
    void allocate(uint64_t lines);
    void fill_single(const NgramTable& table, const std::vector<uint32_t>& contexts);
    void fill(const NgramTable& table, int64_t rows, const std::vector<uint32_t>& above,
              const std::vector<uint32_t>* own);
    void open(uint32_t context, float log10_backoff, uint32_t shorter);
    void insert(uint32_t context, uint32_t word, float log10_prob, uint32_t next);

    struct Free {
        void operator()(void* memory) const { std::free(memory); }
    };
    int order_;
    int64_t vocabulary_;
    std::unique_ptr<Line[], Free> lines_;
    std::vector<uint64_t> ends_;  // [order]: where the lines of the contexts of length 0, 1, … end
    uint32_t empty_, begin_;      // the context without a word, and `<s>`
};

}  // namespace elman
