// Counting: one sort of all places of the text by the words that follow, from which every order is read off.
//
// A place p starts an n-gram of every order up to its `length`, which ends with `</s>` or the text. Places
// sorted by their words have the n-grams of an order in runs; a run ends where the words `shared` with the
// place before are fewer than n. So shape = shared · 16 + length, one byte a place, is the whole trie.
#include <algorithm>
#include <atomic>

#include "ngram_orders.hpp"
#include "threads.hpp"

namespace elman {

namespace {

constexpr int32_t end_of_sentence = 1;
constexpr int radix_bits = 11;
constexpr size_t radix_from = 1 << 12;  // items from which a radix sort is faster than comparisons
constexpr int ahead = 24;               // items between a prefetch and its use

}  // namespace

struct NgramCounts::Sorted {
    const int32_t* ids;
    int64_t size;
    std::vector<uint32_t> places;  // [size], sorted by their words
    std::vector<uint8_t> shape;    // [size]
    int order;
    uint32_t symbols;

    // The word at place p: `</s>`, the ids, then -1.
    int32_t word(int64_t p) const { return p == 0 ? end_of_sentence : p <= size ? ids[p - 1] : -1; }
    // The d-th word after place p plus one, 0 where the sentence or the text has ended.
    uint32_t symbol(uint32_t p, int d) const {
        return d > 1 && word(p + d - 1) == end_of_sentence ? 0 : static_cast<uint32_t>(word(p + d) + 1);
    }
    // The word at a place, `<s>` for `</s>`.
    int64_t first(int64_t p, int64_t vocabulary) const {
        return word(p) == end_of_sentence ? vocabulary : word(p);
    }

    using Items = std::vector<uint64_t>;

    void sort(Items& items, Items& spare) const {
        if (items.size() < radix_from) return std::sort(items.begin(), items.end());
        spare.resize(items.size());
        // places rise already, and the sort is stable
        for (int shift = 0; uint64_t{symbols} >> shift; shift += radix_bits) {
            uint32_t starts[(1 << radix_bits) + 1] = {};
            auto digit = [shift](uint64_t item) { return item >> (32 + shift) & ((1 << radix_bits) - 1); };
            for (uint64_t item : items) starts[digit(item) + 1]++;
            for (int at = 0; at < 1 << radix_bits; at++) starts[at + 1] += starts[at];
            for (uint64_t item : items) spare[starts[digit(item)]++] = item;
            items.swap(spare);
        }
    }

    // Sorts the places [begin, end), which share `depth` words, by what follows. Up to `limit` they are this thread's.
    void refine(size_t begin, size_t end, size_t limit, int depth, Items& items, Items& spare) {
        if (end - begin == 1) {
            int length = depth;
            while (length < order && symbol(places[begin], length)) length++;
            shape[begin] |= length;
            return;
        }
        if (depth == order) {
            for (size_t at = begin; at < end; at++) shape[at] |= order;
            return;
        }
        items.resize(end - begin);
        for (size_t at = begin; at < end; at++) {
            __builtin_prefetch(&ids[places[std::min(at + ahead, limit - 1)] + depth - 1]);
            items[at - begin] = static_cast<uint64_t>(symbol(places[at], depth)) << 32 | places[at];
        }
        sort(items, spare);
        uint64_t last = items[0] >> 32;
        for (size_t at = begin; at < end; at++) {
            uint64_t item = items[at - begin];
            places[at] = static_cast<uint32_t>(item);
            if (item >> 32 != last) shape[at] = depth << 4;
            last = item >> 32;
        }
        size_t first = begin;
        if (!(items[0] >> 32)) {  // where the text has ended
            while (first < end && (first == begin || shape[first] >> 4 == order)) shape[first++] |= depth;
        }
        while (first < end) {
            size_t next = first + 1;
            while (next < end && shape[next] >> 4 == order) next++;
            refine(first, next, limit, depth + 1, items, spare);
            first = next;
        }
    }

    Sorted(const int32_t* text, int64_t events, int64_t vocabulary, int longest, int threads)
        : ids(text), size(events), order(longest) {
        symbols = static_cast<uint32_t>(vocabulary + 1);
        places.resize(size);
        shape.assign(size, static_cast<uint8_t>(order << 4));
        std::vector<uint32_t> starts(vocabulary + 2);
        for (int64_t p = 0; p < size; p++) starts[first(p, vocabulary) + 1]++;
        for (int64_t word = 0; word <= vocabulary; word++) starts[word + 1] += starts[word];
        std::vector<uint32_t> next(starts.begin(), starts.end() - 1);
        for (int64_t p = 0; p < size; p++) places[next[first(p, vocabulary)]++] = static_cast<uint32_t>(p);
        std::atomic<int64_t> word{vocabulary};  // `<s>` is the largest by far
        uint32_t most = 0;
        for (int64_t own = 0; own <= vocabulary; own++) most = std::max(most, starts[own + 1] - starts[own]);
        std::vector<Items> buffers(2 * threads);  // so that nothing can fail for want of memory in a thread
        for (Items& buffer : buffers) buffer.reserve(most);
        parallel(threads, [&](const Member& member) {
            Items &items = buffers[2 * member.index], &spare = buffers[2 * member.index + 1];
            for (int64_t own; (own = word.fetch_sub(1)) >= 0;) {
                if (starts[own] == starts[own + 1]) continue;
                shape[starts[own]] = 0;
                refine(starts[own], starts[own + 1], starts[own + 1], 1, items, spare);
            }
        });
    }
};

NgramCounts::NgramCounts(const int32_t* ids, int64_t size, int64_t vocabulary, int order, int threads)
    : vocabulary_(vocabulary), order_(order), threads_(threads), orders_(order) {
    Order& single = orders_[0];
    single.rows = vocabulary + 1;
    single.raw.resize(single.rows);
    for (int64_t at = 0; at < size; at++) single.raw[ids[at]]++;
    single.initial = vocabulary;
    if (order == 1) return;
    give_back();  // also what led to the ids
    Sorted sorted(ids, size, vocabulary, order, threads);
    collect(sorted);
}

NgramCounts::~NgramCounts() = default;

// Takes memory when it is needed and gives it back when it no longer is: that decides how large a text can be.
void NgramCounts::collect(Sorted& sorted) {
    auto size = static_cast<int64_t>(sorted.places.size());
    // Shares of the places that begin with a new first word, and the rows of each order before each share.
    std::vector<int64_t> begins(threads_ + 1, size);
    using Rows = std::array<int64_t, longest + 1>;
    std::vector<Rows> before(threads_ + 1, Rows{});
    for (int share = 0; share < threads_; share++) {
        begins[share] = size * share / threads_;
        while (begins[share] < size && sorted.shape[begins[share]] >> 4) begins[share]++;
    }
    for (int share = 0; share < threads_; share++) {
        int64_t shapes[256] = {};
        for (int64_t at = begins[share]; at < begins[share + 1]; at++) shapes[sorted.shape[at]]++;
        before[share + 1] = before[share];
        for (int shape = 0; shape < 256; shape++)
            for (int n = (shape >> 4) + 1; n <= std::min(shape & 15, order_); n++)
                before[share + 1][n] += shapes[shape];
    }
    for (int n = 2; n <= order_; n++) orders_[n - 1].rows = before[threads_][n];
    std::vector<uint32_t> found(order_ > 2 ? size + 1 : 0);  // by place: the row of the n-gram that starts there
    for (int n = 3; n <= order_; n++) {
        std::vector<uint32_t>& suffix = orders_[n - 1].suffix;
        suffix.resize(rows(n));
        each(threads_, [&](int share) {
            int64_t row = before[share][n - 1] - 1;
            for (int64_t at = begins[share]; at < begins[share + 1]; at++) {
                int shape = sorted.shape[at];
                if ((shape & 15) < n - 1) continue;
                row += shape >> 4 < n - 1;
                found[sorted.places[at]] = static_cast<uint32_t>(row);
            }
        });
        each(threads_, [&](int share) {
            int64_t row = before[share][n];
            for (int64_t at = begins[share]; at < begins[share + 1]; at++) {
                __builtin_prefetch(&found[sorted.places[std::min<int64_t>(at + ahead, size - 1)] + 1]);
                int shape = sorted.shape[at];
                if (shape >> 4 < n && (shape & 15) >= n) suffix[row++] = found[sorted.places[at] + 1];
            }
        });
    }
    give_back(found);
    for (int n = 2; n <= order_; n++) {
        Order& own = orders_[n - 1];
        own.word.resize(own.rows);
        own.begins.resize(rows(n - 1) + 1, static_cast<uint32_t>(own.rows));
    }
    each(threads_, [&](int share) {  // words, and what goes on from each
        Rows row = before[share];
        for (int64_t at = begins[share]; at < begins[share + 1]; at++) {
            uint32_t p = sorted.places[at];
            __builtin_prefetch(&sorted.ids[sorted.places[std::min<int64_t>(at + ahead, size - 1)]]);
            int shared = sorted.shape[at] >> 4, length = sorted.shape[at] & 15;
            if (shared == 0) orders_[1].begins[sorted.first(p, vocabulary_)] = static_cast<uint32_t>(row[2]);
            for (int n = 2; n <= length; n++) {
                Order& own = orders_[n - 1];
                if (n > shared) {
                    own.word[row[n]] = static_cast<uint32_t>(sorted.word(p + n - 1));
                    if (n < order_) orders_[n].begins[row[n]] = static_cast<uint32_t>(row[n + 1]);
                    row[n]++;
                }
            }
        }
    });
    std::vector<uint32_t>& single = orders_[1].begins;  // not set where nothing follows
    for (int64_t word = vocabulary_; word-- > 0;) single[word] = std::min(single[word], single[word + 1]);
    give_back(sorted.places);
    for (int n = 2; n <= order_; n++) orders_[n - 1].raw.resize(rows(n));
    each(threads_, [&](int share) {
        Rows row = before[share];
        for (int64_t at = begins[share]; at < begins[share + 1]; at++) {
            int shared = sorted.shape[at] >> 4, length = sorted.shape[at] & 15;
            for (int n = 2; n <= length; n++) {
                row[n] += n > shared;
                orders_[n - 1].raw[row[n] - 1]++;
            }
        }
    });
    for (int n = 2; n <= order_; n++)  // `<s>` is the highest id: what begins with it stands last
        orders_[n - 1].initial = orders_[n - 1].begins[orders_[n - 2].initial];
}

int64_t NgramCounts::rows(int n) const { return orders_[n - 1].rows; }

void NgramCounts::columns(int n, int64_t* keys, int64_t* raw, int64_t* suffix, bool* initial) const {
    const Order& own = orders_[n - 1];
    int64_t prefix = 0;
    for (int64_t row = 0; row < rows(n); row++) {
        while (n > 1 && own.begins[prefix + 1] <= row) prefix++;
        keys[row] = n == 1 ? row : prefix * (vocabulary_ + 1) + own.word[row];
        raw[row] = own.raw[row];
        initial[row] = row >= own.initial;
        if (suffix) suffix[row] = own.suffixes()[row];
    }
}

}  // namespace elman
