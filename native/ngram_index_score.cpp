// Scoring by the longest context that is listed: (context, word) is looked up; where it is not there, the context
// gives its backoff weight and the next shorter one takes its place. Contexts that share an end are linked, so one
// or two lookups an event do.
//
// A lookup waits for the one before and reads a line that is in no near cache. So many pieces of the text advance
// in turn, each by one line, and what one of them reads next is fetched while the others move. What a line says
// cannot be foreseen: the lanes are sorted by it, without a branch, and those of a kind go on together.
#include <atomic>

#include "ngram_index_layout.hpp"
#include "ngram_orders.hpp"

namespace elman {

namespace {

constexpr int lanes = 48;
constexpr int64_t shortest = 96, longest = 1000;  // events of a piece; 1024 would put all lanes in one set of the cache

}  // namespace

// One of the pieces of the text that advance in turn.
struct NgramIndex::Lane {
    const Line* line = nullptr;        // to be searched for (context, word)
    uint32_t place = 0, step = 0;      // of the context; lines searched before
    int32_t length = 0;                // of the context
    int32_t word = 0, entry = 0;       // where it was found in its line
    int32_t left = 0;                  // words to come, of the piece or of what leads to it
    const int32_t* from = nullptr;     // where `word` stands
    double* to = nullptr;              // where its number goes
    int64_t first = -1, column = 0;    // the piece whose lead is being read; -1 when that is done
    double backoff[NgramCounts::longest];  // by length: the weight of a context after which the word is not listed;
                                           // else -0, which adds nothing to any number
    double unused;                         // where the numbers of a lead go
};

// One thread's share of the work.
class NgramIndex::Walk {
    const NgramIndex& index_;
    const NgramEvents& events_;
    const Order* orders_;
    const int64_t piece_, pieces_;  // rows of a piece; how many there are
    const int longest_;             // the length of the longest context
    const uint32_t begin_;          // `<s>`
    std::atomic<int64_t>& next_;    // the piece that nobody has yet
    Lane running_[lanes];
    int count_ = 0;
    uint8_t ended_[lanes];
    int ends_ = 0;

    void look_up(Lane& lane) const {
        const Order& order = orders_[lane.length + 1];
        lane.line = &order.lines[order.begin(lane.place, lane.word)];
        lane.step = 0;
        __builtin_prefetch(lane.line);
    }

    // What is needed if the word is not listed after the context. A single word has no line: then the address is
    // none, which a prefetch may have, and a branch would cost more.
    void fetch_context(const Lane& lane) const {
        auto lines = reinterpret_cast<uintptr_t>(orders_[lane.length].lines.get());
        __builtin_prefetch(reinterpret_cast<const void*>(lines + (lane.place >> 2) * sizeof(Line)));
    }

    // Another piece, with an empty context; false when all are taken.
    bool take(Lane& lane) {
        int64_t number = next_.fetch_add(1, std::memory_order_relaxed);
        if (number >= pieces_) return false;
        lane.first = events_.begin + number / events_.batch * piece_, lane.column = number % events_.batch;
        const int32_t* ids = events_.ids + lane.column;
        int64_t begin = lane.first, earliest = std::max<int64_t>(0, lane.first - longest_);
        while (begin > earliest && ids[(begin - 1) * events_.batch] >= 0) begin--;
        lane.length = begin == 0;
        lane.place = begin_;
        lane.from = ids + begin * events_.batch;
        lane.to = &lane.unused;
        lane.left = static_cast<int32_t>(lane.first - begin);
        std::fill_n(lane.backoff, NgramCounts::longest, -0.0);
        return true;
    }

    void put(Lane& lane, double log10, int length) const {
        *lane.to = log10 * events_.scale;
        if (events_.matched && lane.first < 0) events_.matched[lane.to - events_.scores] = length;
        lane.from += events_.batch;
        lane.to += lane.first < 0 ? events_.batch : 0;
        lane.left--;
    }

    void set_context(Lane& lane, int length, uint32_t place) const {
        bool begins = lane.word == 1 || static_cast<uint32_t>(lane.word) == begin_;
        lane.length = begins ? 1 : length;
        lane.place = begins ? begin_ : place;
    }

    // On to the next word that needs a lookup, at the end of a lead or piece; false when there is none.
    bool go_on(Lane& lane) {
        for (;;) {
            if (lane.left == 0 && lane.first >= 0) {
                int64_t row = lane.first - events_.begin;
                lane.to = events_.scores + row * events_.batch + lane.column;
                lane.left = static_cast<int32_t>(std::min(piece_, events_.end - lane.first));
                lane.first = -1;
            } else if (lane.left == 0) {
                if (!take(lane)) return false;
                continue;
            }
            lane.word = *lane.from;
            if (lane.length > 0) return true;
            put(lane, index_.log10_prob_[lane.word], 1);
            set_context(lane, 1, lane.word);
        }
    }

    // The word has log10 probability `prob` by an n-gram of `length`; the context after it is set.
    void advance(int number, float prob, int length) {
        Lane& lane = running_[number];
        double sum = prob;
        for (int i = 1; i <= longest_; i++) sum += lane.backoff[i], lane.backoff[i] = -0.0;
        put(lane, sum, length);
        if (lane.left > 0)
            lane.word = *lane.from;
        else if (!go_on(lane)) {
            ended_[ends_++] = static_cast<uint8_t>(number);
            return;
        }
        look_up(lane);
    }

    void found(int number) {
        Lane& lane = running_[number];
        const Line& line = *lane.line;
        const Line* begin = orders_[lane.length + 1].lines.get();
        uint32_t link = line.shorter[lane.entry];
        int length = lane.length + 1;
        bool whole = length > longest_;  // too long for a context
        set_context(lane, whole ? length - 1 - Context::below(link) : length,
                    whole ? link & Format::place_mask : static_cast<uint32_t>(lane.line - begin) << 2 | lane.entry);
        if (whole) fetch_context(lane);
        advance(number, line.log10_prob[lane.entry], length);
    }

    void back_off(Lane& lane) const {
        const Line& own = orders_[lane.length].line(lane.place);
        lane.backoff[lane.length] = own.log10_backoff[lane.place & 3];
        Context shorter = Context::shorter(lane.length, own.shorter[lane.place & 3]);
        lane.length = shorter.length, lane.place = shorter.place;
        fetch_context(lane);
        look_up(lane);
    }

    void search_on(Lane& lane) const {
        const Order& order = orders_[lane.length + 1];
        lane.line = &order.lines[order.next(lane.line - order.lines.get(), lane.step++, lane.place)];
        __builtin_prefetch(lane.line);
    }

    // Not even a pair with the word before is listed.
    void single(int number) {
        Lane& lane = running_[number];
        lane.backoff[1] = index_.log10_backoff_[lane.place];
        set_context(lane, 1, lane.word);
        advance(number, index_.log10_prob_[lane.word], 1);
    }

  public:
    Walk(const NgramIndex& index, const NgramEvents& events, int64_t piece, int64_t pieces, std::atomic<int64_t>& next)
        : index_(index), events_(events), orders_(index.orders_.data()), piece_(piece), pieces_(pieces),
          longest_(index.order_ - 1), begin_(static_cast<uint32_t>(index.vocabulary_)), next_(next) {}

    void run() {
        while (count_ < lanes && go_on(running_[count_])) look_up(running_[count_++]);
        while (count_ > 0) {
            uint8_t hit[lanes + 1], missed[lanes + 1], unlisted[lanes + 1], elsewhere[lanes + 1];
            int hits = 0, misses = 0, singles = 0, others = 0;
            for (int i = 0; i < count_; i++) {
                Lane& lane = running_[i];
                uint32_t entries = lane.line->matches(lane.place | lane.step << Format::place_bits);
                lane.entry = __builtin_ctz(entries | 16);
                bool is = entries != 0, on = !is & lane.line->goes_on(lane.step), last = lane.length == 1;
                hit[hits] = missed[misses] = unlisted[singles] = elsewhere[others] = static_cast<uint8_t>(i);
                hits += is, others += on;
                misses += !(is | on | last), singles += !(is | on) & last;
            }
            for (int k = 0; k < misses; k++) back_off(running_[missed[k]]);
            for (int k = 0; k < others; k++) search_on(running_[elsewhere[k]]);
            for (int k = 0; k < singles; k++) single(unlisted[k]);
            for (int k = 0; k < hits; k++) found(hit[k]);
            std::sort(ended_, ended_ + ends_);
            while (ends_ > 0) running_[ended_[--ends_]] = running_[--count_];
        }
    }
};

void NgramIndex::score(const NgramEvents& events, int threads) const {
    int64_t rows = events.end - events.begin, all = rows * events.batch;
    if (all == 0) return;
    int shares = static_cast<int>(std::clamp<int64_t>(all / (lanes * shortest), 1, threads));
    int64_t piece = std::clamp(all / (16 * lanes * shares), shortest, longest);
    int64_t pieces = (rows + piece - 1) / piece * events.batch;
    std::atomic<int64_t> next{0};
    each(shares, [&](int) { Walk(*this, events, piece, pieces, next).run(); });
}

}  // namespace elman
