// Interpolated modified Kneser-Ney from counts, in the same order of additions as elman/ngram/kneser_ney.py:
//
//   P(w | v) = (a(v w) - D) / Σ_x a(v x) + γ(v) · P(w | v without its first word),  γ(v) = Σ_x D / Σ_x a(v x)
#include <algorithm>
#include <cmath>

#include "ngram_orders.hpp"

namespace elman {

void NgramCounts::adjust(const int64_t* cuts, int64_t* of_counts) {
    for (int index = 1; index < order_; index++)
        if (cuts[index]) orders_[index].left.resize(orders_[index].raw.size());
    // raw counts of an order are read before its own adjusted counts replace them, and by nobody else
    each(order_, [&](int index) {
        Order& own = orders_[index];
        auto rows = static_cast<int64_t>(own.raw.size());
        own.kept = rows;
        if (index && cuts[index]) {
            own.kept = 0;
            for (int64_t row = 0; row < rows; row++)
                own.left[row] = own.raw[row] > cuts[index] ? static_cast<uint32_t>(own.kept++) : Order::pruned;
        }
        if (index + 1 < order_) {
            std::fill(own.raw.begin(), own.raw.begin() + own.initial, 0);
            for (uint32_t row : orders_[index + 1].suffix) own.raw[row] += row < own.initial;
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

void NgramCounts::estimate(int n, const double* discount, const double* first, int64_t* keys, float* log10_prob,
                           float* log10_backoff) {
    Order& own = orders_[n - 1];
    const Order& below = orders_[n - 2];
    auto rows = static_cast<int64_t>(own.raw.size());
    if (n == 2) prob_.assign(first, first + vocabulary_ + 1);
    std::vector<double> prob(n < order_ ? own.kept : 0);
    std::fill(log10_backoff, log10_backoff + below.kept, 0.0f);
    each(threads_, [&](int share) {
        // shares begin with a new prefix
        auto edge = [&](int64_t row) {
            while (row && row < rows && own.prefix[row] == own.prefix[row - 1]) row++;
            return row;
        };
        int64_t end = edge(rows * (share + 1) / threads_);
        for (int64_t begin = edge(rows * share / threads_), next; begin < end; begin = next) {
            uint32_t prefix = own.prefix[begin];
            double total = 0, mass = 0;
            auto taken = [&](int64_t row) {  // all of what is pruned
                uint32_t count = own.raw[row];
                return own.now(row) == Order::pruned ? count : discount[std::min(count, 3u)];
            };
            for (next = begin; next < rows && own.prefix[next] == prefix; next++) {
                total += own.raw[next];
                mass += taken(next);
            }
            double gamma = total > 0 ? mass / total : 1;
            uint32_t context = below.now(prefix);
            if (context != Order::pruned) log10_backoff[context] = static_cast<float>(std::log10(gamma));
            for (int64_t row = begin; row < next; row++) {
                uint32_t place = own.now(row);
                if (place == Order::pruned) continue;
                double p = (own.raw[row] - taken(row)) / total + gamma * prob_[below.now(own.suffix[row])];
                if (n < order_) prob[place] = p;
                keys[place] = context * (vocabulary_ + 1) + own.word[row];
                log10_prob[place] = static_cast<float>(std::min(std::log10(p), 0.0));
            }
        }
    });
    prob_.swap(prob);
    for (auto* column : {&own.prefix, &own.word, &own.suffix}) std::vector<uint32_t>().swap(*column);
}

}  // namespace elman
