// Scoring by the longest context that is listed: the word is looked up in it; where it is not there, the context
// gives its backoff weight and the next shorter one takes its place. The empty context lists every word.
//
// A lookup waits for the one before and reads a line that is in no near cache. So many pieces of the text advance
// in turn, each by one line, and what one of them reads next is fetched while the others move. Whether the word is
// there cannot be foreseen: both are done by the same instructions, which choose the fields of the line that they
// take, without a branch.
#include <atomic>

#include "ngram_index_layout.hpp"
#include "ngram_orders.hpp"

namespace elman {

namespace {

constexpr int lanes = 32;
constexpr int ahead = 16;  // numbers between a prefetch and its use; twice as many ids
constexpr int64_t shortest = 96, longest = 1000;  // events of a piece; 1024 would put all lanes in one set of the cache

}  // namespace

// One thread's share of the work. Contexts: at least as many as the longest context is long.
template <int Contexts, bool Lengths> class NgramIndex::Walk {
    const NgramIndex& index_;
    const NgramEvents& events_;
    const Lines lines_;
    const int32_t* const ids_;
    const int64_t batch_;
    const double scale_;
    const int64_t piece_, pieces_;  // rows of a piece; how many there are
    std::atomic<int64_t>& next_;    // the piece that nobody has yet
    double unused_;                 // where the numbers of a lead go

    static constexpr int64_t top = Contexts < 8 ? 7 : 15;  // all bits, for `advance`; not below Contexts

    // One of the pieces of the text that advance in turn.
    struct Lane {
        const Line* line = nullptr;  // to be searched for the word
        const Form* form = nullptr;  // of the context
        uint32_t context = 0, word = 0;
        int64_t at = 0, end = 0;  // which of the ids the word is; where its piece ends, or what leads to it
        int64_t first = -1;       // the piece whose lead is being read; -1 when that is done
        double* to = nullptr;     // the numbers, as many as ids; in a lead there is but one place …
        int64_t to_mask = 0;      // … and this is 0
        int64_t free = top;       // where in `backoff` the next weight goes
        // Of the contexts after which the word is not listed, from `free` + 1 to `top`, the longest last. Beyond it
        // stands -0, which adds nothing to any number: so as many can be added each time.
        double backoff[top + Contexts + 1];
        Lane() { std::fill_n(backoff, top + Contexts + 1, -0.0); }
    };
    Lane running_[lanes];

    // Wherever it is: beyond the text, or in a lead, nothing is there.
    template <int Write, class T> static void prefetch(T* array, int64_t at) {
        __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(array) + at * sizeof(T)), Write);
    }

    void look_up(Lane& lane) const {
        lane.word = static_cast<uint32_t>(ids_[lane.at]);
        lane.form = &lines_.form(lane.context);
        lane.line = &lines_.of(lane.context) + lane.form->begin(lane.word);
        __builtin_prefetch(lane.line);
        prefetch<1>(lane.to, lane.at + ahead);
        prefetch<0>(ids_, lane.at + 2 * ahead);
    }

    // Another piece, with an empty context; false when all are taken.
    bool take(Lane& lane) {
        int64_t number = next_.fetch_add(1, std::memory_order_relaxed);
        if (number >= pieces_) return false;
        int64_t row = events_.begin + number / events_.batch * piece_, column = number % events_.batch;
        int64_t begin = row, earliest = std::max<int64_t>(0, row - (index_.order_ - 1));
        while (begin > earliest && events_.ids[(begin - 1) * events_.batch + column] >= 0) begin--;
        lane.context = begin == 0 ? index_.begin_ : index_.empty_;
        lane.at = begin * events_.batch + column;
        lane.first = lane.end = row * events_.batch + column;
        lane.to = &unused_, lane.to_mask = 0;
        lane.free = top;
        return true;
    }

    // On to the piece when its lead has been read, or to another; false when there is none.
    bool go_on(Lane& lane) {
        while (lane.at == lane.end) {
            if (lane.first < 0) {
                if (!take(lane)) return false;
                continue;
            }
            lane.to = events_.scores - events_.begin * events_.batch, lane.to_mask = -1;
            int64_t column = lane.first % events_.batch;
            lane.end = std::min(lane.first + piece_ * events_.batch, events_.end * events_.batch + column);
            lane.first = -1;
        }
        return true;
    }

    int64_t length(uint32_t context) const {
        const auto& ends = index_.ends_;
        return std::upper_bound(ends.begin(), ends.end(), Form::line(context)) - ends.begin();
    }

    // On by one line, to the next word or to a shorter context; false when nothing is left to do.
    bool advance(Lane& lane) {
        const Line& line = *lane.line;
        const Form& form = *lane.form;
        uint32_t found = line.matches(lane.word) & form.words;
        int64_t missed = (int64_t{found} - 1) >> 63, hit = ~missed;  // all bits or none
        if (missed & form.several & line.went_on(lane.word)) {
            lane.line = lines_.after(lane.context, &line);
            __builtin_prefetch(lane.line);
            return true;
        }
        int field = Line::field(found, form);
        double number = line.number[field], sum = number;
        for (int i = 1; i <= Contexts; i++) sum += lane.backoff[lane.free + i];
        lane.to[lane.at & lane.to_mask] = sum * scale_;  // where it is not there, for a while
        if (Lengths && hit && lane.first < 0)
            events_.matched[lane.at - events_.begin * events_.batch] = length(lane.context) + 1;
        lane.backoff[lane.free] = number;
        lane.free = (lane.free + missed) | (top & hit);
        lane.at += batch_ & hit;
        lane.context = line.link[field + Line::next];
        if (lane.at == lane.end && !go_on(lane)) return false;
        look_up(lane);
        return true;
    }

  public:
    Walk(const NgramIndex& index, const NgramEvents& events, int64_t piece, int64_t pieces, std::atomic<int64_t>& next)
        : index_(index), events_(events), lines_{index.lines_.get()}, ids_(events.ids), batch_(events.batch),
          scale_(events.scale), piece_(piece), pieces_(pieces), next_(next) {}

    void run() {
        Lane* end = running_;
        while (end < running_ + lanes && go_on(*end)) look_up(*end++);
        while (end > running_) {
            for (Lane* lane = running_; lane < end;) {
                if (advance(*lane)) lane++;
                else *lane = *--end;
            }
        }
    }
};

void NgramIndex::score(const NgramEvents& events, int threads) const {
    int64_t rows = events.end - events.begin, all = rows * events.batch;
    if (all == 0) return;
    int shares = static_cast<int>(std::clamp<int64_t>(all / (lanes * shortest), 1, threads));
    int64_t turns = 8 * lanes * shares, piece = std::clamp((all + turns - 1) / turns, shortest, longest);
    int64_t pieces = (rows + piece - 1) / piece * events.batch;
    std::atomic<int64_t> next{0};
    auto walk = [&]<int Contexts, bool Lengths>() {
        each(shares, [&](int) { Walk<Contexts, Lengths>(*this, events, piece, pieces, next).run(); });
    };
    if (order_ <= 5 && !events.matched) walk.template operator()<4, false>();
    else if (!events.matched) walk.template operator()<NgramCounts::longest, false>();
    else walk.template operator()<NgramCounts::longest, true>();
}

}  // namespace elman
