// The memory of the index: lines of four words, in which small contexts share a line and large ones have several.
#pragma once

#include <algorithm>
#include <array>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "ngram_index.hpp"

namespace elman {

// How a context uses its line: 26 bits of a context are the line, the upper 6 its form.
struct NgramIndex::Form {
    static constexpr int line_bits = 26, forms = 1 << (32 - line_bits);
    static constexpr uint32_t nothing = UINT32_MAX;  // no word; no context: neither has such a number

    uint64_t lines = 1;    // how many it has
    uint16_t backoff = 0;  // bit i: field i of the line is its backoff weight
    uint8_t words = 0;     // bit i: word i of the line is its own
    uint8_t several = 0;   // 1: a word that found no room is in one of the next lines

    static uint32_t line(uint32_t context) { return context & ((1u << line_bits) - 1); }
    // The line, counted from the context's own, in which the search for a word begins.
    uint64_t begin(uint32_t word) const { return word * 0x9E3779B1u * lines >> 32; }
};

// Three contexts of one word, two of two, or one. Fields: 4 words, 4 log10 probabilities, 2 backoff weights, 4 next
// contexts, 2 links; of a third context, weight and link stand where a fourth word's would. A context of several
// lines has both in each, and in the last field which words went on to the next line.
struct alignas(64) NgramIndex::Line {
    static constexpr int probs = 4, backoffs = 8, next = 6;  // next: from a number to its context
    union {
        uint32_t link[16];
        float number[16];
    };

    // Bit i: word i is this.
    uint32_t matches(uint32_t word) const {
#ifdef __SSE2__
        __m128i own = _mm_load_si128(reinterpret_cast<const __m128i*>(link));
        return _mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(own, _mm_set1_epi32(static_cast<int>(word)))));
#else
        return (link[0] == word) | (link[1] == word) << 1 | (link[2] == word) << 2 | (link[3] == word) << 3;
#endif
    }
    // The field of the word's probability; where it is not there, of the context's weight.
    static int field(uint32_t found, const Form& form) { return __builtin_ctz(found << probs | form.backoff); }
    // 1: the word may have found no room here.
    uint32_t went_on(uint32_t word) const { return link[15] >> (word & 31) & 1; }
};

// The forms there are: 0 to 2 one word, 3 and 4 two, then rising numbers of lines.
struct NgramIndex::Forms : std::array<Form, Form::forms> {
    static constexpr uint32_t one = 0, two = 3, more = 5;

    Forms() {
        constexpr uint16_t backoffs[3] = {1 << Line::backoffs, 2 << Line::backoffs, 8 << Line::probs};
        for (uint32_t i = 0; i < 3; i++) (*this)[one + i] = {1, backoffs[i], static_cast<uint8_t>(1u << i), 0};
        for (uint32_t i = 0; i < 2; i++) (*this)[two + i] = {1, backoffs[i], static_cast<uint8_t>(3u << 2 * i), 0};
        uint64_t lines = 1;
        for (uint32_t i = more; i < Form::forms; i++) {
            (*this)[i] = {lines, backoffs[0], 15, lines > 1};
            lines = std::max(lines + 1, lines * 7 / 5);
        }
    }
    static const Forms& all() {
        static const Forms forms;
        return forms;
    }
    // For so many words, one line's or more: five eighths full.
    uint32_t with(uint64_t words) const {
        uint64_t lines = words <= 4 ? 1 : (words * 2 + 4) / 5;
        auto fewer = [](const Form& form, uint64_t count) { return form.lines < count; };
        return static_cast<uint32_t>(std::lower_bound(begin() + more, end() - 1, lines, fewer) - begin());
    }
};

// The lines, for who looks up words.
struct NgramIndex::Lines {
    Line* lines;
    const Form* forms = Forms::all().data();

    const Form& form(uint32_t context) const { return forms[context >> Form::line_bits]; }
    Line& of(uint32_t context) const { return lines[Form::line(context)]; }
    Line* begin(uint32_t context, uint32_t word) const { return &of(context) + form(context).begin(word); }
    // After `line`, among those of a context.
    Line* after(uint32_t context, const Line* line) const {
        uint64_t next = line + 1 - &of(context);
        return &of(context) + (next < form(context).lines ? next : 0);
    }
    uint32_t shorter(uint32_t context) const { return of(context).link[Line::field(0, form(context)) + Line::next]; }
    // The context after the word in this one, or in the longest shorter one that lists it. line = begin(context, word).
    uint32_t next(uint32_t context, uint32_t word, const Line* line) const {
        for (;;) {
            const Form& own = form(context);
            uint32_t found = line->matches(word) & own.words;
            if (found) return line->link[Line::field(found, own) + Line::next];
            if (own.several & line->went_on(word)) {
                line = after(context, line);
            } else {
                context = shorter(context);
                line = begin(context, word);
            }
        }
    }
};

}  // namespace elman
