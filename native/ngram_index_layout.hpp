// The memory of the index: lines of four entries, a hash table of them for each order.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <new>
#include <stdexcept>

#ifdef __SSE2__
#include <emmintrin.h>
#endif
#ifdef __linux__
#include <sys/mman.h>
#endif

#include "ngram_index.hpp"

namespace elman {

struct NgramIndex::Format {
    static constexpr int place_bits = 27;
    static constexpr uint32_t place_mask = (1u << place_bits) - 1;
    static constexpr uint32_t farthest = 29;  // steps from where the search begins; 31 would read as `nothing`
    static constexpr uint32_t nothing = UINT32_MAX;
    static constexpr uint32_t overflow = 1u << 31;
};

// Entries fill up from the first; `context` is the context's place and, in the upper bits, the distance.
// `shorter` is the longest listed n-gram that is a proper end of this one and a context: its place and, in the
// upper bits, how many orders it is below, less one. The highest bit of the last link says that an entry found
// no room here and went on: where it is not set, a search ends, which it otherwise would wherever it is not full.
struct alignas(64) NgramIndex::Line {
    uint32_t context[4];
    float log10_prob[4], log10_backoff[4];
    uint32_t shorter[4];

    // Bit i: entry i has this context and distance.
    uint32_t matches(uint32_t wanted) const {
#ifdef __SSE2__
        __m128i own = _mm_load_si128(reinterpret_cast<const __m128i*>(context));
        return _mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(own, _mm_set1_epi32(static_cast<int>(wanted)))));
#else
        return (context[0] == wanted) | (context[1] == wanted) << 1 | (context[2] == wanted) << 2 |
               (context[3] == wanted) << 3;
#endif
    }
    // Whether what is not in this line, the search's `step`-th, may be in the next.
    bool goes_on(uint32_t step) const { return (shorter[3] & Format::overflow) && step < Format::farthest; }
};

struct NgramIndex::Order {
    struct Free {
        void operator()(void* memory) const { std::free(memory); }
    };
    std::unique_ptr<Line[], Free> lines;
    uint64_t size = 0, stride = 0;

    // At least as many lines as words, which differ for one context.
    void resize(uint64_t count, uint64_t words) {
        size = (std::max(count, words) + 1) / 2 * 2;
        if (size * 4 > Format::place_mask) throw std::length_error("too many n-grams of one order for the index");
        stride = size / words;
        constexpr size_t page = size_t{1} << 21;  // large ones spare most of the misses of address lookup
        size_t bytes = (size * sizeof(Line) + page - 1) / page * page;
        lines.reset();
        lines.reset(static_cast<Line*>(std::aligned_alloc(page, bytes)));
        if (!lines) throw std::bad_alloc();
#ifdef __linux__
        madvise(lines.get(), bytes, MADV_HUGEPAGE);  // a wish: where it fails all works the same
#endif
        for (uint64_t at = 0; at < size; at++) {
            std::fill_n(lines[at].context, 4, Format::nothing);
            std::fill_n(lines[at].shorter, 4, 0);
        }
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
            if (uint32_t found = lines[at].matches(context | step << Format::place_bits))
                return static_cast<uint32_t>(at << 2) + __builtin_ctz(found);
            if (!lines[at].goes_on(step)) return Format::nothing;
        }
    }
    // The place that it has now; `nothing` when all that it may have are taken.
    uint32_t insert(uint64_t at, uint32_t context) {
        for (uint32_t step = 0; step <= Format::farthest; at = next(at, step++, context)) {
            for (uint32_t entry = 0; entry < 4; entry++) {
                if (lines[at].context[entry] != Format::nothing) continue;
                lines[at].context[entry] = context | step << Format::place_bits;
                return static_cast<uint32_t>(at << 2) + entry;
            }
            lines[at].shorter[3] |= Format::overflow;
        }
        return Format::nothing;
    }
};

// A context: its length (0: none) and place.
struct NgramIndex::Context {
    int length;
    uint32_t place;

    // By how many orders, less one, a link goes down.
    static int below(uint32_t link) { return static_cast<int>((link & ~Format::overflow) >> Format::place_bits); }
    // By the link of an n-gram of order n.
    static Context shorter(int n, uint32_t link) {
        return {n - 1 - below(link), link & Format::place_mask};
    }
};

}  // namespace elman
