// Interpolated modified Kneser-Ney from counts, in the same order of additions as elman/ngram/kneser_ney.py:
//
//   P(w | v) = (a(v w) - D) / Σ_x a(v x) + γ(v) · P(w | v without its first word),  γ(v) = Σ_x D / Σ_x a(v x)
#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "ngram_orders.hpp"

namespace elman {

void NgramCounts::adjust(const int64_t* cuts, int64_t* of_counts) {
    for (int index = 1; index < order_; index++)
        if (cuts[index]) orders_[index].left.resize(orders_[index].rows);
    // raw counts of an order are read before its own adjusted counts replace them, and by nobody else
    each(order_, [&](int index) {
        Order& own = orders_[index];
        own.kept = own.rows;
        if (index && cuts[index]) {
            own.kept = 0;
            for (int64_t row = 0; row < own.rows; row++)
                own.left[row] = own.raw[row] > cuts[index] ? static_cast<uint32_t>(own.kept++) : Order::pruned;
        }
        if (index + 1 < order_) {
            std::fill(own.raw.begin(), own.raw.begin() + own.initial, 0);
            for (uint32_t row : orders_[index + 1].suffixes()) own.raw[row] += row < own.initial;
        }
        int64_t* found = of_counts + 5 * index;
        std::fill(found, found + 5, 0);
        for (uint32_t count : own.raw)
            if (count < 5) found[count]++;
    });
}

int64_t NgramCounts::kept(int n) const { return orders_[n - 1].kept; }

void NgramCounts::unigrams(int64_t* adjusted) const {
    std::copy(orders_[0].raw.begin(), orders_[0].raw.end(), adjusted);
}

// f(prefix, its first row, one past its last) for every prefix of order n.
template <class F> void NgramCounts::each_prefix(int n, const F& f) const {
    const std::vector<uint32_t>& begins = orders_[n - 1].begins;
    auto edge = [&](int share) {  // as many rows for each thread
        if (share == threads_) return begins.end() - 1;
        return std::lower_bound(begins.begin(), begins.end() - 1, orders_[n - 1].rows * share / threads_);
    };
    each(threads_, [&](int share) {
        for (auto at = edge(share), end = edge(share + 1); at < end; at++)
            if (at[0] < at[1]) f(static_cast<uint32_t>(at - begins.begin()), at[0], at[1]);
    });
}

double NgramCounts::prob(uint32_t row) const {
    return std::bit_cast<double>(uint64_t{upper_[row]} << 32 | lower_[row]);
}

// Rows are those before pruning, as suffixes are; nobody asks for the probability of one that is pruned.
void NgramCounts::estimate(int n, const double* discount, const double* first, float* log10_backoff) {
    Order& own = orders_[n - 1];
    const Order& below = orders_[n - 2];
    // a probability takes the place of the row's count and suffix
    auto put = [](double prob, uint32_t& upper, uint32_t& lower) {
        auto bits = std::bit_cast<uint64_t>(prob);
        upper = static_cast<uint32_t>(bits >> 32), lower = static_cast<uint32_t>(bits);
    };
    if (n == 2) {
        upper_.resize(vocabulary_ + 1), lower_.resize(vocabulary_ + 1);
        for (int64_t word = 0; word <= vocabulary_; word++) put(first[word], upper_[word], lower_[word]);
        own.suffix = own.word;
    }
    std::fill(log10_backoff, log10_backoff + below.kept, 0.0f);
    each_prefix(n, [&](uint32_t prefix, uint32_t begin, uint32_t end) {
        double total = 0, mass = 0;
        auto taken = [&](uint32_t row) {  // all of what is pruned
            uint32_t count = own.raw[row];
            return own.now(row) == Order::pruned ? count : discount[std::min(count, 3u)];
        };
        for (uint32_t row = begin; row < end; row++) {
            total += own.raw[row];
            mass += taken(row);
        }
        double gamma = total > 0 ? mass / total : 1;
        uint32_t context = below.now(prefix);
        if (context != Order::pruned) log10_backoff[context] = static_cast<float>(std::log10(gamma));
        for (uint32_t row = begin; row < end; row++) {
            if (own.now(row) == Order::pruned) continue;
            double p = (own.raw[row] - taken(row)) / total + gamma * prob(own.suffix[row]);
            put(p, own.raw[row], own.suffix[row]);
        }
    });
    upper_ = std::move(own.raw), lower_ = std::move(own.suffix);
    give_back();
}

void NgramCounts::log10_prob(int n, float* log10_prob) {
    const Order& own = orders_[n - 1];
    each_prefix(n, [&](uint32_t, uint32_t begin, uint32_t end) {
        for (uint32_t row = begin; row < end; row++)
            if (own.now(row) != Order::pruned)
                log10_prob[own.now(row)] = static_cast<float>(std::min(std::log10(prob(row)), 0.0));
    });
    if (n < order_) return;
    for (auto* half : {&upper_, &lower_}) give_back(*half);
}

void NgramCounts::keys(int n, int64_t* keys) {
    Order& own = orders_[n - 1];
    each_prefix(n, [&](uint32_t prefix, uint32_t begin, uint32_t end) {
        int64_t first = orders_[n - 2].now(prefix) * (vocabulary_ + 1);
        for (uint32_t row = begin; row < end; row++)
            if (own.now(row) != Order::pruned) keys[own.now(row)] = first + own.word[row];
    });
    for (auto* column : {&own.word, &own.begins}) give_back(*column);
}

}  // namespace elman
