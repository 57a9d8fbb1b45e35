// Making the index. In blocks, in three passes, so that what the rows of a block need is fetched together.
#include "ngram_index_layout.hpp"

namespace elman {

NgramIndex::NgramIndex(const NgramTable* tables, const int64_t* rows, int order, int64_t vocabulary)
    : order_(order), vocabulary_(vocabulary), log10_prob_(tables[0].log10_prob, tables[0].log10_prob + vocabulary + 1),
      log10_backoff_(tables[0].log10_backoff, tables[0].log10_backoff + vocabulary + 1), orders_(order + 1) {
    if (vocabulary >= Format::place_mask) throw std::length_error("too many words for the index");
    std::vector<uint32_t> places(vocabulary + 1);  // of each row of the order below
    for (int64_t word = 0; word <= vocabulary; word++) places[word] = static_cast<uint32_t>(word);
    for (int n = 2; n <= order; n++) {
        uint64_t lines = rows[n - 1] * 2 / 5 + 1;  // five eighths full
        while (!fill(n, tables[n - 1], rows[n - 1], lines, places)) lines += lines / 8 + 1;
    }
}

NgramIndex::~NgramIndex() = default;

int64_t NgramIndex::bytes() const {
    int64_t sum = (vocabulary_ + 1) * 2 * sizeof(float);
    for (const Order& order : orders_) sum += order.size * sizeof(Line);
    return sum;
}

// False when an entry finds no place.
bool NgramIndex::fill(int n, const NgramTable& table, int64_t rows, uint64_t lines, std::vector<uint32_t>& places) {
    constexpr int64_t block = 64;
    struct Row {
        uint32_t context;
        int64_t word;
        uint64_t own, other;
        Context shorter;
    } block_of[block];
    Order& own = orders_[n];
    own.resize(lines, vocabulary_ + 1);
    std::vector<uint32_t> now(n < order_ ? rows : 0);
    int64_t prefix = 0;
    for (int64_t begin = 0; begin < rows; begin += block) {
        int64_t size = std::min(block, rows - begin);
        for (int64_t i = 0; i < size; i++) {
            Row& row = block_of[i];
            while (table.children[prefix + 1] <= begin + i) prefix++;
            row.context = places[prefix];
            row.word = table.keys[begin + i] - prefix * (vocabulary_ + 1);
            row.own = own.begin(row.context, row.word);
            own.prefetch(row.own);
            if (n > 2) __builtin_prefetch(&orders_[n - 1].line(row.context));
        }
        for (int64_t i = 0; i < size && n > 2; i++) {
            Row& row = block_of[i];
            row.shorter = Context::shorter(n - 1, orders_[n - 1].line(row.context).shorter[row.context & 3]);
            const Order& below = orders_[row.shorter.length + 1];
            row.other = below.begin(row.shorter.place, row.word);
            below.prefetch(row.other);
        }
        for (int64_t i = 0; i < size; i++) {
            const Row& row = block_of[i];
            Context end{1, static_cast<uint32_t>(row.word)};
            Context from = n > 2 ? row.shorter : Context{0, 0};
            for (uint64_t at = row.other; from.length > 0;) {
                uint32_t found = orders_[from.length + 1].find(at, from.place);
                if (found != Format::nothing) {
                    end = {from.length + 1, found};
                    break;
                }
                if (from.length == 1) break;
                from = Context::shorter(from.length, orders_[from.length].line(from.place).shorter[from.place & 3]);
                at = orders_[from.length + 1].begin(from.place, row.word);
            }
            uint32_t place = own.insert(row.own, row.context);
            if (place == Format::nothing) return false;
            Line& line = own.lines[place >> 2];
            line.log10_prob[place & 3] = table.log10_prob[begin + i];
            line.log10_backoff[place & 3] = n < order_ ? table.log10_backoff[begin + i] : 0;
            line.shorter[place & 3] |= end.place | static_cast<uint32_t>(n - 1 - end.length) << Format::place_bits;
            if (n < order_) now[begin + i] = place;
        }
    }
    places.swap(now);
    return true;
}

}  // namespace elman
