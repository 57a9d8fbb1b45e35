// Scoring by the longest context that is listed: (context, word) is looked up; where it is not there, the context
// gives its backoff weight and the next shorter one takes its place. Contexts that share an end are linked, so one
// or two lookups an event do. As each waits for the one before, many places of the text advance in turn, and what
// one of them needs is fetched while the others move.
#include "ngram_index.hpp"

#include <algorithm>
#include <cstdlib>
#include <new>
#include <stdexcept>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "ngram_orders.hpp"

namespace elman {

namespace {

constexpr int place_bits = 27;
constexpr uint32_t place_mask = (1u << place_bits) - 1;
constexpr uint32_t farthest = 29;      // steps from where the search begins; 31 would read as `nothing`
constexpr uint32_t nothing = UINT32_MAX;
constexpr int64_t piece = 512;         // events that a lane takes at once
constexpr int lanes = 16;

struct Free {
    void operator()(void* memory) const { std::free(memory); }
};

}  // namespace

// Entries fill up from the first; `context` is the context's place and, in the upper bits, the distance.
// `shorter` is the longest listed n-gram that is a proper end of this one and a context: its place and, in the
// upper bits, how many orders it is below, less one.
struct alignas(64) NgramIndex::Line {
    uint32_t context[4];
    float log10_prob[4], log10_backoff[4];
    uint32_t shorter[4];
};

struct NgramIndex::Order {
    std::unique_ptr<Line[], Free> lines;
    uint64_t size = 0, stride = 0;

    // At least as many lines as words, which differ for one context.
    void resize(uint64_t count, uint64_t words) {
        size = (std::max(count, words) + 1) / 2 * 2;
        if (size * 4 > place_mask) throw std::length_error("too many n-grams of one order for the index");
        stride = size / words;
        constexpr size_t page = size_t{1} << 21;  // large ones spare most of the misses of address lookup
        size_t bytes = (size * sizeof(Line) + page - 1) / page * page;
        lines.reset();
        lines.reset(static_cast<Line*>(std::aligned_alloc(page, bytes)));
        if (!lines) throw std::bad_alloc();
#ifdef __linux__
        madvise(lines.get(), bytes, MADV_HUGEPAGE);  // a wish: where it fails all works the same
#endif
        for (uint64_t at = 0; at < size; at++) std::fill_n(lines[at].context, 4, nothing);
    }
    static uint64_t mix(uint32_t context) {
        uint64_t mixed = (context + uint64_t{1}) * 0x9E3779B97F4A7C15u;
        return mixed ^ mixed >> 32;
    }
    uint64_t begin(uint32_t context, int64_t word) const {
        uint64_t at = ((mix(context) & UINT32_MAX) * size >> 32) + word * stride;
        return at < size ? at : at - size;
    }
    // The line searched after `at`: its neighbour in a pair, then a pair elsewhere, by a leap of the context's own.
    uint64_t next(uint64_t at, uint32_t step, uint32_t context) const {
        if (step % 2 == 0) return at ^ 1;
        uint64_t leap = (mix(context) >> 32) * (size / 2) >> 32, to = (at >> 1) + leap;
        return (to < size / 2 ? to : to - size / 2) * 2 + ((at ^ 1) & 1);
    }
    const Line& line(uint32_t place) const { return lines[place >> 2]; }
    void prefetch(uint64_t at) const { __builtin_prefetch(&lines[at]); }

    // The place of (context, word), or `nothing`; at = begin(context, word).
    uint32_t find(uint64_t at, uint32_t context) const {
        for (uint32_t step = 0;; at = next(at, step++, context)) {
            const Line& line = lines[at];
            uint32_t wanted = context | step << place_bits;
            uint32_t found = (line.context[0] == wanted) | (line.context[1] == wanted) << 1 |
                             (line.context[2] == wanted) << 2 | (line.context[3] == wanted) << 3;
            if (found) return static_cast<uint32_t>(at << 2) + __builtin_ctz(found);
            if (line.context[3] == nothing || step == farthest) return nothing;
        }
    }
    // The place that it has now; `nothing` when all that it may have are taken.
    uint32_t insert(uint64_t at, uint32_t context) {
        for (uint32_t step = 0; step <= farthest; at = next(at, step++, context)) {
            for (uint32_t entry = 0; entry < 4; entry++) {
                if (lines[at].context[entry] != nothing) continue;
                lines[at].context[entry] = context | step << place_bits;
                return static_cast<uint32_t>(at << 2) + entry;
            }
        }
        return nothing;
    }
};

// A context: its length (0: none) and place.
struct NgramIndex::Context {
    int length;
    uint32_t place;

    // By the link of an n-gram of order n.
    static Context shorter(int n, uint32_t link) {
        return {n - 1 - static_cast<int>(link >> place_bits), link & place_mask};
    }
};

NgramIndex::NgramIndex(const NgramTable* tables, const int64_t* rows, int order, int64_t vocabulary)
    : order_(order), vocabulary_(vocabulary), log10_prob_(tables[0].log10_prob, tables[0].log10_prob + vocabulary + 1),
      log10_backoff_(tables[0].log10_backoff, tables[0].log10_backoff + vocabulary + 1), orders_(order + 1) {
    if (vocabulary >= place_mask) throw std::length_error("too many words for the index");
    std::vector<uint32_t> places(vocabulary + 1);  // of each row of the order below
    for (int64_t word = 0; word <= vocabulary; word++) places[word] = static_cast<uint32_t>(word);
    for (int n = 2; n <= order; n++) {
        uint64_t lines = rows[n - 1] / 3 + 1;  // three quarters full
        while (!fill(n, tables[n - 1], rows[n - 1], lines, places)) lines += lines / 8 + 1;
    }
}

NgramIndex::~NgramIndex() = default;

int64_t NgramIndex::bytes() const {
    int64_t sum = (vocabulary_ + 1) * 2 * sizeof(float);
    for (const Order& order : orders_) sum += order.size * sizeof(Line);
    return sum;
}

// In blocks, in three passes, so that the lines of a block are fetched together.
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
                if (found != nothing) {
                    end = {from.length + 1, found};
                    break;
                }
                if (from.length == 1) break;
                from = Context::shorter(from.length, orders_[from.length].line(from.place).shorter[from.place & 3]);
                at = orders_[from.length + 1].begin(from.place, row.word);
            }
            uint32_t place = own.insert(row.own, row.context);
            if (place == nothing) return false;
            Line& line = own.lines[place >> 2];
            line.log10_prob[place & 3] = table.log10_prob[begin + i];
            line.log10_backoff[place & 3] = n < order_ ? table.log10_backoff[begin + i] : 0;
            line.shorter[place & 3] = end.place | static_cast<uint32_t>(n - 1 - end.length) << place_bits;
            if (n < order_) now[begin + i] = place;
        }
    }
    places.swap(now);
    return true;
}

// One of the places of the text that advance in turn.
struct NgramIndex::Lane {
    Context context{0, 0};  // about to be looked up with `word`
    uint64_t line = 0;
    int64_t word = 0;
    const int64_t* from = nullptr;
    int64_t at = 0, left = 0, silent = 0;  // the event, those to come, those among them that only make the context
    int missed = 0;                        // contexts that were longer, longest first:
    float backoff[NgramCounts::longest];
};

void NgramIndex::score(const int64_t* stream, int64_t places, int64_t batch, double* log10, int64_t* matched,
                       int threads) const {
    const int64_t events = places - order_, lead = order_ - 1;
    const int64_t pieces = (events + piece - 1) / piece * batch;
    auto look_up = [&](Lane& lane) {
        const Order& order = orders_[lane.context.length + 1];
        lane.line = order.begin(lane.context.place, lane.word);
        order.prefetch(lane.line);
    };
    auto share_of = [&](int64_t next, int64_t end) {
        // false when all pieces are taken
        auto take = [&](Lane& lane) {
            if (next == end) return false;
            int64_t first = next / batch * piece, column = next % batch;
            next++;
            lane.context = {0, 0};
            lane.at = (first - lead) * batch + column;
            lane.from = stream + (first + 1) * batch + column;
            lane.left = std::min(piece, events - first) + lead;
            lane.silent = lead;
            return true;
        };
        auto step = [&](Lane& lane, Context context) {
            lane.context = context;
            lane.at += batch, lane.from += batch, lane.left--, lane.silent--;
        };
        // The word has log10 probability `prob` by an n-gram of `length`, before the weights of what was missed.
        auto finish = [&](Lane& lane, float prob, int length, Context context) {
            if (lane.silent <= 0) {
                double sum = prob;
                for (int i = lane.missed; i-- > 0;) sum += lane.backoff[i];
                log10[lane.at] = sum;
                if (matched) matched[lane.at] = length;
            }
            lane.missed = 0;
            bool begins = lane.word == 1 || lane.word == vocabulary_;
            step(lane, begins ? Context{1, static_cast<uint32_t>(vocabulary_)} : context);
        };
        // On to the next word that needs a lookup; false when there is none.
        auto proceed = [&](Lane& lane) {
            for (;;) {
                if (lane.left == 0 && !take(lane)) return false;
                lane.word = *lane.from;
                if (lane.word < 0)
                    step(lane, {0, 0});  // before the first event
                else if (lane.context.length > 0)
                    return look_up(lane), true;
                else
                    finish(lane, log10_prob_[lane.word], 1, {1, static_cast<uint32_t>(lane.word)});
            }
        };
        auto visit = [&](Lane& lane) {
            Context& context = lane.context;
            const Order& order = orders_[context.length + 1];
            uint32_t found = order.find(lane.line, context.place);
            if (found != nothing) {
                const Line& line = order.line(found);
                int length = context.length + 1;
                Context after{length, found};
                if (length == order_) {
                    after = Context::shorter(length, line.shorter[found & 3]);
                    if (after.length > 1) __builtin_prefetch(&orders_[after.length].line(after.place));
                }
                finish(lane, line.log10_prob[found & 3], length, after);
                return proceed(lane);
            }
            if (context.length > 1) {
                const Line& line = orders_[context.length].line(context.place);
                lane.backoff[lane.missed++] = line.log10_backoff[context.place & 3];
                context = Context::shorter(context.length, line.shorter[context.place & 3]);
                if (context.length > 1) __builtin_prefetch(&orders_[context.length].line(context.place));
                return look_up(lane), true;
            }
            lane.backoff[lane.missed++] = log10_backoff_[context.place];
            finish(lane, log10_prob_[lane.word], 1, {1, static_cast<uint32_t>(lane.word)});
            return proceed(lane);
        };
        Lane running[lanes];
        int count = 0;
        while (count < lanes && proceed(running[count])) count++;
        while (count > 0) {
            for (int i = 0; i < count;) {
                if (visit(running[i]))
                    i++;
                else
                    running[i] = running[--count];
            }
        }
    };
    int shares = static_cast<int>(std::clamp<int64_t>(pieces / lanes, 1, threads));
    each(shares, [&](int share) { share_of(pieces * share / shares, pieces * (share + 1) / shares); });
}

}  // namespace elman
