// n-grams: counting a text, interpolated Kneser-Ney, and looking up every event of a text.
//
// The rows of an order are sorted by (prefix row, word); key = prefix row · (V + 1) + word. The NumPy code of
// elman/ngram computes the same and is the reference. The id V is `<s>`. Plain C++, portable, no SIMD.
#pragma once

#include <cstdint>
#include <vector>

namespace elman {

// The n-grams of one text. Throws std::bad_alloc.
class NgramCounts {
  public:
    static constexpr int longest = 10;

    // ids [size]: the events; all in 0 … V - 1 and size < 2³¹ - 64 (the caller has checked). 1 is `</s>`.
    NgramCounts(const int32_t* ids, int64_t size, int64_t vocabulary, int order, int threads);
    ~NgramCounts();

    // How many n-grams order n = 1 … has; V + 1 at order 1.
    int64_t rows(int n) const;
    // Of order n: keys, raw [rows], suffix [rows] (n > 1, else null), initial [rows], as in OrderCounts.
    void columns(int n, int64_t* keys, int64_t* raw, int64_t* suffix, bool* initial) const;

    // What follows is for Kneser-Ney: `adjust` first, then for n = 2 … in turn `estimate` and `log10_prob`, then `keys`
    // of each; each once. What is no longer needed is given back.

    // Replaces raw counts by adjusted ones; what raw counts say about cuts[n - 1] is kept aside.
    // of_counts [order][5] becomes the number of n-grams with adjusted count 0 … 4.
    void adjust(const int64_t* cuts, int64_t* of_counts);
    // Rows that are left of order n, and the adjusted counts of order 1 [V + 1].
    int64_t kept(int n) const;
    void unigrams(int64_t* adjusted) const;

    // Order n ≥ 2, discount [4] (the first is 0): log10 backoff weights of the order below [kept(n - 1)].
    // first [V + 1]: probabilities of the single words, for n = 2.
    void estimate(int n, const double* discount, const double* first, float* log10_backoff);
    // Of the order estimated last [kept(n)].
    void log10_prob(int n, float* log10_prob);
    void keys(int n, int64_t* keys);

  private:
    struct Order;
    struct Sorted;
    void collect(Sorted& sorted);
    double prob(uint32_t row) const;
    template <class F> void each_prefix(int n, const F& f) const;

    int64_t vocabulary_;
    int order_, threads_;
    std::vector<Order> orders_;
    std::vector<uint32_t> upper_, lower_;  // halves of the probabilities of the order estimated last
};

// The rows of one order as a lookup needs them.
struct NgramTable {
    const int64_t* keys;         // [rows], rising
    const float* log10_prob;     // [rows]
    const float* log10_backoff;  // [rows], null at the highest order
    const uint32_t* children;    // [rows of the order below + 1]: where the n-grams with that prefix begin
};

// children [contexts + 1] of an order with rising keys; false when a key is out of range or they do not rise.
bool ngram_children(const int64_t* keys, int64_t rows, int64_t contexts, int64_t vocabulary, uint32_t* children);

// Events to be scored, and where their numbers go: rows begin … end - 1 of ids; the rows before give their context.
struct NgramEvents {
    const int32_t* ids;  // [end][batch]: -1 is nothing, 1 `</s>`, V `<s>`; `</s>` stands before row 0. Ids of events
                         // are in 0 … V, those before in -1 … V (the caller has checked)
    int64_t begin, end, batch;
    double scale;      // of the log10 probabilities
    double* scores;    // [end - begin][batch]
    int64_t* matched;  // [end - begin][batch]: the length of the longest listed n-gram that ends here; or null
};

void ngram_score(const NgramTable* tables, int order, int64_t vocabulary, const NgramEvents& events, int threads);

// Lines of an ARPA file, from row `begin` of order n to at most row `end`, as many as `room` bytes hold for sure;
// returns the row of the next line. tokens, starts [V + 2]: the bytes of each token, `<s>` last. Null backoffs at
// the highest order.
int64_t ngram_lines(const NgramTable* tables, int n, const char* tokens, const int64_t* starts, int64_t vocabulary,
                    int64_t begin, int64_t end, char* out, int64_t room, int64_t* bytes);

}  // namespace elman
