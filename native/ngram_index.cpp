// Making the index. In blocks, in three passes, so that what the rows of a block need is fetched together.
#include <new>
#include <stdexcept>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "ngram_index_layout.hpp"

namespace elman {

namespace {

constexpr uint32_t end_of_sentence = 1;

}  // namespace

NgramIndex::NgramIndex(const NgramTable* tables, const int64_t* rows, int order, int64_t vocabulary)
    : order_(order), vocabulary_(vocabulary), ends_(order) {
    const Forms& forms = Forms::all();
    uint32_t all = forms.with(vocabulary + 1);  // words are listed after the empty context
    uint64_t lines = ends_[0] = forms[all].lines;
    empty_ = all << Form::line_bits;
    std::vector<std::vector<uint32_t>> contexts(order);  // of each row of an order; `nothing` where none follows
    for (int n = 1; n < order; n++) {
        const NgramTable &own = tables[n - 1], &above = tables[n];
        contexts[n].resize(rows[n - 1]);
        uint32_t ones = 0, twos = 0;  // in the line begun last
        uint64_t line_of_ones = 0, line_of_twos = 0;
        int64_t prefix = 0;
        for (int64_t row = 0; row < rows[n - 1]; row++) {
            while (n > 1 && own.children[prefix + 1] <= row) prefix++;
            bool ends = own.keys[row] - prefix * (vocabulary + 1) == end_of_sentence;  // then `<s>` comes
            if (n > 1) ends |= contexts[n - 1][prefix] == Form::nothing;
            uint32_t words = above.children[row + 1] - above.children[row];
            bool initial = n == 1 && row == vocabulary;  // looked for after each sentence
            if (ends || (!words && own.log10_backoff[row] == 0 && !initial)) {
                contexts[n][row] = Form::nothing;
                continue;
            }
            uint32_t form;
            uint64_t line;
            if (words <= 1) {
                if (ones == 0) line_of_ones = lines++;
                line = line_of_ones, form = Forms::one + ones;
                ones = (ones + 1) % 3;
            } else if (words == 2) {
                if (twos == 0) line_of_twos = lines++;
                line = line_of_twos, form = Forms::two + twos;
                twos = (twos + 1) % 2;
            } else {
                form = forms.with(words);
                line = lines;
                lines += forms[form].lines;
            }
            if (lines >> Form::line_bits) throw std::length_error("too many n-grams for the index");
            contexts[n][row] = static_cast<uint32_t>(line) | form << Form::line_bits;
        }
        ends_[n] = lines;
    }
    begin_ = contexts[1][vocabulary];
    allocate(lines);
    fill_single(tables[0], contexts[1]);
    for (int n = 2; n <= order; n++) {
        fill(tables[n - 1], rows[n - 1], contexts[n - 1], n < order ? &contexts[n] : nullptr);
        std::vector<uint32_t>().swap(contexts[n - 1]);
    }
}

NgramIndex::~NgramIndex() = default;

int64_t NgramIndex::bytes() const { return ends_.back() * sizeof(Line); }

void NgramIndex::allocate(uint64_t lines) {
    constexpr size_t page = size_t{1} << 21;  // large ones spare most of the misses of address lookup
    size_t bytes = (lines * sizeof(Line) + page - 1) / page * page;
    lines_.reset(static_cast<Line*>(std::aligned_alloc(page, bytes)));
    if (!lines_) throw std::bad_alloc();
#ifdef __linux__
    madvise(lines_.get(), bytes, MADV_HUGEPAGE);  // a wish: where it fails all works the same
#endif
    for (uint64_t at = 0; at < lines; at++) {
        std::fill_n(lines_[at].link, 4, Form::nothing);
        std::fill_n(lines_[at].link + 4, 12, 0);
    }
}

// The empty context and, of those of one word, all but what follows.
void NgramIndex::fill_single(const NgramTable& table, const std::vector<uint32_t>& contexts) {
    open(empty_, 0, 0);
    for (uint32_t word = 0; word <= vocabulary_; word++) {
        uint32_t own = contexts[word == end_of_sentence ? vocabulary_ : word];
        insert(empty_, word, table.log10_prob[word], own == Form::nothing ? empty_ : own);
        if (contexts[word] != Form::nothing) open(own, table.log10_backoff[word], empty_);
    }
}

void NgramIndex::fill(const NgramTable& table, int64_t rows, const std::vector<uint32_t>& above,
                      const std::vector<uint32_t>* own) {
    constexpr int64_t block = 64;
    struct Row {
        uint32_t context, word, shorter;
        const Line* line;
    } block_of[block];
    const Lines lines{lines_.get()};
    int64_t prefix = 0;
    for (int64_t begin = 0; begin < rows; begin += block) {
        int64_t size = std::min(block, rows - begin);
        for (int64_t i = 0; i < size; i++) {
            Row& row = block_of[i];
            while (table.children[prefix + 1] <= begin + i) prefix++;
            row.context = above[prefix];
            row.word = static_cast<uint32_t>(table.keys[begin + i] - prefix * (vocabulary_ + 1));
            if (row.context == Form::nothing) continue;
            __builtin_prefetch(&lines.of(row.context));
            __builtin_prefetch(lines.begin(row.context, row.word));
            if (own && (*own)[begin + i] != Form::nothing) __builtin_prefetch(&lines.of((*own)[begin + i]));
        }
        for (int64_t i = 0; i < size; i++) {
            Row& row = block_of[i];
            if (row.context == Form::nothing) continue;
            row.shorter = lines.shorter(row.context);
            row.line = lines.begin(row.shorter, row.word);
            __builtin_prefetch(row.line);
        }
        for (int64_t i = 0; i < size; i++) {
            const Row& row = block_of[i];
            if (row.context == Form::nothing) continue;
            uint32_t next = lines.next(row.shorter, row.word, row.line);
            if (own && (*own)[begin + i] != Form::nothing) {
                open((*own)[begin + i], table.log10_backoff[begin + i], next);
                next = (*own)[begin + i];
            }
            insert(row.context, row.word, table.log10_prob[begin + i], next);
        }
    }
}

// Each of a context's lines says what a word costs that is not there.
void NgramIndex::open(uint32_t context, float log10_backoff, uint32_t shorter) {
    const Lines lines{lines_.get()};
    const Form& form = lines.form(context);
    int field = Line::field(0, form);
    for (uint64_t at = 0; at < form.lines; at++) {
        Line& line = (&lines.of(context))[at];
        line.number[field] = log10_backoff;
        line.link[field + Line::next] = shorter;
    }
}

void NgramIndex::insert(uint32_t context, uint32_t word, float log10_prob, uint32_t next) {
    const Lines lines{lines_.get()};
    const Form& form = lines.form(context);
    for (Line* line = lines.begin(context, word);; line = lines.after(context, line)) {
        if (uint32_t free = line->matches(Form::nothing) & form.words) {
            int field = Line::field(free & -free, form);
            line->link[field - Line::probs] = word;
            line->number[field] = log10_prob;
            line->link[field + Line::next] = next;
            return;
        }
        line->link[15] |= 1u << (word & 31);
    }
}

}  // namespace elman
