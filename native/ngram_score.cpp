// Every event of a stream at once, order by order: the n-gram that ends at a place is looked up among the
// children of the (n-1)-gram that ends one place before, so places do not wait for each other and what the next
// step reads is fetched while others are looked up.
#include <algorithm>

#include "ngram_orders.hpp"

namespace elman {

namespace {

constexpr int block = 256;
constexpr uint32_t none = UINT32_MAX;

struct Block {
    int64_t words[block];
    uint32_t context[block + 1];    // row of the (n-1)-gram that ends here, as a context
    uint32_t begin[block], end[block];
    double log10[block];
    int64_t matched[block];
    uint32_t last[NgramCounts::longest];  // for each order: the context at the end of the block before
};

uint32_t find(const int64_t* keys, uint32_t begin, uint32_t end, int64_t key) {
    uint32_t size = end - begin;
    const int64_t* at = keys + begin;
    while (size > 1) {
        uint32_t half = size / 2;
        at += at[half] <= key ? half : 0;
        size -= half;
    }
    return size && *at == key ? static_cast<uint32_t>(at - keys) : none;
}

void score_block(const NgramTable* tables, int order, int64_t vocabulary, Block& b, int places) {
    uint32_t* context = b.context + 1;
    const int64_t* words = b.words;
    b.context[0] = b.last[0];
    for (int i = 0; i < places; i++) {
        bool known = words[i] >= 0;
        context[i] = !known ? none : static_cast<uint32_t>(words[i] == 1 ? vocabulary : words[i]);
        b.log10[i] = known ? tables[0].log10_prob[words[i]] : 0;
        b.matched[i] = 1;
    }
    b.last[0] = context[places - 1];
    for (int n = 2; n <= order; n++) {
        const NgramTable &own = tables[n - 1], &below = tables[n - 2];
        for (int i = 0; i < places; i++) {
            if (b.context[i] == none) continue;
            __builtin_prefetch(own.children + b.context[i]);
            __builtin_prefetch(below.log10_backoff + b.context[i]);
        }
        for (int i = 0; i < places; i++) {
            bool possible = b.context[i] != none && words[i] >= 0;
            b.begin[i] = possible ? own.children[b.context[i]] : 0;
            b.end[i] = possible ? own.children[b.context[i] + 1] : 0;
            __builtin_prefetch(own.keys + b.begin[i] + (b.end[i] - b.begin[i]) / 2);
        }
        uint32_t before = b.context[0];
        b.context[0] = n < order ? b.last[n - 1] : none;
        for (int i = 0; i < places; i++) {
            uint32_t row = none;
            if (before != none) {
                b.log10[i] += below.log10_backoff[before];
                row = find(own.keys, b.begin[i], b.end[i], before * (vocabulary + 1) + words[i]);
                if (row != none) __builtin_prefetch(own.log10_prob + row);
            }
            b.begin[i] = row;  // for the loop below
            before = context[i];
            context[i] = words[i] == 1 ? none : row;  // after `</s>` there is only `<s>`
        }
        for (int i = 0; i < places; i++) {
            if (b.begin[i] == none) continue;
            b.log10[i] = own.log10_prob[b.begin[i]];
            b.matched[i] = n;
        }
        if (n < order) b.last[n - 1] = context[places - 1];
    }
}

}  // namespace

bool ngram_children(const int64_t* keys, int64_t rows, int64_t contexts, int64_t vocabulary, uint32_t* children) {
    int64_t base = vocabulary + 1, context = 0, first = 0, last = -1;  // first = context · base
    children[0] = 0;
    for (int64_t row = 0; row < rows; row++) {
        int64_t key = keys[row];
        if (key <= last || key >= contexts * base) return false;
        for (last = key; key >= first + base; first += base) children[++context] = static_cast<uint32_t>(row);
    }
    while (context < contexts) children[++context] = static_cast<uint32_t>(rows);
    return true;
}

void ngram_score(const NgramTable* tables, int order, int64_t vocabulary, const NgramEvents& events, int threads) {
    // a share begins with the places that its first event can look back on
    auto share_of = [&](int64_t column, int64_t first, int64_t last) {
        Block b;
        std::fill(b.last, b.last + NgramCounts::longest, none);
        for (int64_t begin = first - order; begin < last; begin += block) {
            int size = static_cast<int>(std::min<int64_t>(block, last - begin));
            for (int i = 0; i < size; i++) {
                int64_t row = begin + i;
                b.words[i] = row >= 0 ? events.ids[row * events.batch + column] : row == -1 ? 1 : -1;
            }
            score_block(tables, order, vocabulary, b, size);
            for (int i = static_cast<int>(std::max<int64_t>(0, first - begin)); i < size; i++) {
                int64_t at = (begin + i - events.begin) * events.batch + column;
                events.scores[at] = b.log10[i] * events.scale;
                if (events.matched) events.matched[at] = b.matched[i];
            }
        }
    };
    int64_t rows = events.end - events.begin;
    int shares = static_cast<int>(std::clamp<int64_t>(rows / (16 * block), 1, threads));
    each(shares, [&](int share) {
        int64_t first = events.begin + rows * share / shares, last = events.begin + rows * (share + 1) / shares;
        for (int64_t column = 0; first < last && column < events.batch; column++) share_of(column, first, last);
    });
}

}  // namespace elman
