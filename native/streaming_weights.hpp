// Weights as a step reads them, and the one product: rows of activations times a packed matrix.
//
// A panel is C vectors of LANES columns (C·LANES rows of the stored matrix); within it depth is outermost, so
// that a panel is one run of memory:   [panel][word][C][LANES]
// A word is 4 bytes of one row: one float32, two bfloat16 or four int8 of consecutive k; missing ones are zero.
//
// Activations stay float32 for float32 and bfloat16 weights. For int8 each row of them is quantized on its
// own, x ≈ s (u - 128), u in 1 … 255, s = max |x| / 127, and Σ q u is exact in 32 bits whatever the instruction
// set, so that every one gives the same sums:  Σ w x = scale_w scale_x (Σ q u - 128 Σ q).
#pragma once

#include "streaming.hpp"
#include "tile.hpp"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace elman::ELMAN_ISA {

constexpr int VECTOR = 4 * LANES;                     // bytes
constexpr long MANY = 2 * ROWS, DEEP = 128;            // from so many rows on, by blocks of depth
constexpr int MOST_ROWS = REGISTERS == 32 ? 6 : 3;    // of a tile, beside at most 4 vectors of columns

// Read where they lie, [row][k]: sums along k, LANES rows at once, then across the lanes.
struct StreamInPlace {
    static constexpr int DEPTH = 1, STEP = 4;
    static constexpr bool QUANTIZED = false, IN_PLACE = true;
};

struct StreamFloat32 {
    using Sum = Floats;
    using Right = Floats;
    static constexpr int DEPTH = 1, STEP = 4;  // k and bytes of activations per word
    static constexpr bool QUANTIZED = false, IN_PLACE = false;
    ELMAN_INLINE Right prepare(Words w) { return load_as<Floats>(&w); }
    ELMAN_INLINE Sum multiply_add(Sum sum, const char* a, Right b) {
        float x;
        memcpy(&x, a, 4);
        return sum + broadcast(x) * b;
    }
};

// The activations are not rounded: a step costs the reading of its weights, and two multiply-adds hide in that.
struct StreamBfloat16 {
    using Sum = Floats;
    struct Right {
        Floats low, high;
    };
    static constexpr int DEPTH = 2, STEP = 8;
    static constexpr bool QUANTIZED = false, IN_PLACE = false;
    ELMAN_INLINE Right prepare(Words w) {
        Words low = w << 16, high = w & 0xffff0000u;
        return {load_as<Floats>(&low), load_as<Floats>(&high)};
    }
    ELMAN_INLINE Sum multiply_add(Sum sum, const char* a, const Right& b) {
        float x[2];
        memcpy(x, a, 8);
        return sum + broadcast(x[0]) * b.low + broadcast(x[1]) * b.high;
    }
};

struct StreamInt8 {
    using Sum = Ints;
    static constexpr int DEPTH = 4, STEP = 4;
    static constexpr bool QUANTIZED = true, IN_PLACE = false;
#if defined(__AVX512VNNI__)
    using Right = Words;
    ELMAN_INLINE Right prepare(Words w) { return w; }
    ELMAN_INLINE Sum multiply_add(Sum sum, const char* a, Right b) {
        uint32_t x;
        memcpy(&x, a, 4);
        return Ints(_mm512_dpbusd_epi32(__m512i(sum), __m512i(broadcast_word(x)), __m512i(b)));
    }
#elif defined(__SSE2__)
    // u · q of bytes would saturate in 16 bits (255 · 127 · 2), so both are widened first: k and k + 2 in one
    // vector of 16-bit numbers, k + 1 and k + 3 in the other.
    typedef int16_t Shorts __attribute__((vector_size(VECTOR)));
    struct Right {
        Shorts even, odd;
    };
    ELMAN_INLINE Right prepare(Words w) {
        Shorts pairs = load_as<Shorts>(&w);
        return {(pairs << 8) >> 8, pairs >> 8};
    }
    ELMAN_INLINE Sum multiply_add(Sum sum, const char* a, const Right& b) {
        uint32_t x;
        memcpy(&x, a, 4);
        return sum + pairs(broadcast_word(x & 0x00ff00ffu), b.even) + pairs(broadcast_word(x >> 8 & 0x00ff00ffu), b.odd);
    }
    ELMAN_INLINE Ints pairs(Words a, Shorts b) {
#if defined(__AVX512BW__)
        return Ints(_mm512_madd_epi16(__m512i(a), __m512i(b)));
#elif defined(__AVX2__)
        return Ints(_mm256_madd_epi16(__m256i(a), __m256i(b)));
#else
        return Ints(_mm_madd_epi16(__m128i(a), __m128i(b)));
#endif
    }
#else
    using Right = Ints;
    ELMAN_INLINE Right prepare(Words w) { return load_as<Ints>(&w); }
    ELMAN_INLINE Sum multiply_add(Sum sum, const char* a, Right b) {
        const auto* x = reinterpret_cast<const uint8_t*>(a);
        return sum + ((b << 24) >> 24) * x[0] + ((b << 16) >> 24) * x[1] + ((b << 8) >> 24) * x[2] + (b >> 24) * x[3];
    }
#endif
};

// A packed matrix; every pointer into the memory of its model. In place: `data` is the stored matrix.
struct Packed {
    const char* data;
    const float* scale;    // int8: of each column, packed order
    const int32_t* sums;   // int8: 128 Σ_k q of each column
    long panels, words;    // words even
    int columns;           // C
    // Where stored rows are: row(panel, c) is that of lane 0 of vector c, and lanes(panel, c) follow from there.
    long per_vector, per_panel, limit;

    long row(long panel, int c) const { return c * per_vector + panel * per_panel; }
    int lanes(long panel, int c) const {
        long left = limit - (per_vector == LANES ? row(panel, c) : panel * per_panel);
        return left > LANES ? LANES : left > 0 ? static_cast<int>(left) : 0;
    }
    long panel_bytes() const { return words * columns * VECTOR; }
};

struct Activations {
    const char* data;    // rows of words · Kind::STEP bytes
    long stride;         // bytes from row to row
    const float* scale;  // int8: of each row
};

template <class Kind, int R, int C>
ELMAN_INLINE void accumulate(typename Kind::Sum (&acc)[R][C], long words, const char* a, long stride, const char* b) {
    if constexpr (R == 1) {  // two chains for each vector, or the latency of the sums would be the speed
        typename Kind::Sum other[C]{};
        for (long w = 0; w < words; w += 2, a += 2 * Kind::STEP, b += 2 * C * VECTOR) {
#pragma GCC unroll 4
            for (int c = 0; c < C; c++) {
                acc[0][c] = Kind::multiply_add(acc[0][c], a, Kind::prepare(load_as<Words>(b + c * VECTOR)));
            }
#pragma GCC unroll 4
            for (int c = 0; c < C; c++) {
                auto right = Kind::prepare(load_as<Words>(b + (C + c) * VECTOR));
                other[c] = Kind::multiply_add(other[c], a + Kind::STEP, right);
            }
        }
#pragma GCC unroll 4
        for (int c = 0; c < C; c++) acc[0][c] += other[c];
    } else {
        const char* rows[(R + 2) / 3];  // one pointer for three rows, as in tile.hpp
#pragma GCC unroll 2
        for (int g = 0; g < (R + 2) / 3; g++) rows[g] = a + 3 * g * stride;
        for (long w = 0; w < words; w++, b += C * VECTOR) {
            typename Kind::Right right[C];
#pragma GCC unroll 4
            for (int c = 0; c < C; c++) right[c] = Kind::prepare(load_as<Words>(b + c * VECTOR));
#pragma GCC unroll 6
            for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
                for (int c = 0; c < C; c++)
                    acc[r][c] = Kind::multiply_add(acc[r][c], rows[r / 3] + r % 3 * stride, right[c]);
            }
#pragma GCC unroll 2
            for (int g = 0; g < (R + 2) / 3; g++) {
                rows[g] += Kind::STEP;
#if defined(__x86_64__)
                asm("" : "+r"(rows[g]));
#endif
            }
        }
    }
}

// The products of x [K] with LANES rows of w [., K], the last of which counts for all lanes after it.
ELMAN_INLINE Floats along_rows(const float* w, long K, int last, const float* x) {
    Words acc[LANES];
    Floats sums[LANES]{};
    if (last == LANES - 1) {
        const float* rows[(LANES + 2) / 3];  // one pointer for three rows, as in tile.hpp
#pragma GCC unroll 6
        for (int g = 0; g < (LANES + 2) / 3; g++) rows[g] = w + 3 * g * K;
        long k = 0;
        for (; k + LANES <= K; k += LANES) {
            const Floats right = load(x + k);
#pragma GCC unroll 16
            for (int r = 0; r < LANES; r++) sums[r] += load(rows[r / 3] + r % 3 * K) * right;
#pragma GCC unroll 6
            for (int g = 0; g < (LANES + 2) / 3; g++) {
                rows[g] += LANES;
#if defined(__x86_64__)
                asm("" : "+r"(rows[g]));
#endif
            }
        }
        if (k < K) {
            const int rest = static_cast<int>(K - k);
            const Floats right = load_first(x + k, rest);
#pragma GCC unroll 16
            for (int r = 0; r < LANES; r++) sums[r] += load_first(rows[r / 3] + r % 3 * K, rest) * right;
        }
#pragma GCC unroll 16
        for (int r = 0; r < LANES; r++) acc[r] = load_as<Words>(&sums[r]);
    } else {
        for (int r = 0; r <= last; r++) {
            Floats sum{};
            for (long k = 0; k < K; k += LANES) {
                const int lanes = K - k < LANES ? static_cast<int>(K - k) : LANES;
                sum += load_first(w + r * K + k, lanes) * load_first(x + k, lanes);
            }
            acc[r] = load_as<Words>(&sum);
        }
        for (int r = last + 1; r < LANES; r++) acc[r] = acc[last];
    }
    transpose(acc);
    Floats total{};
#pragma GCC unroll 16
    for (int r = 0; r < LANES; r++) total += load_as<Floats>(&acc[r]);
    return total;
}

// Calls f(row, v) for each row, v[C] its products with the columns of one panel. room: rows · C · LANES floats.
template <class Kind, int C, class F>
ELMAN_INLINE void for_rows(const Packed& m, long panel, const Activations& a, long rows, float* room, const F& f) {
    if constexpr (Kind::IN_PLACE) {
        for (long row = 0; row < rows; row++) {
            Floats done[C];
            const auto* x = reinterpret_cast<const float*>(a.data + row * a.stride);
            for (int c = 0; c < C; c++) {
                const int lanes = m.lanes(panel, c);
                const float* w = reinterpret_cast<const float*>(m.data) + m.row(panel, c) * m.words;
                done[c] = lanes ? along_rows(w, m.words, lanes - 1, x) : Floats{};
            }
            f(row, done);
        }
        return;
    } else {
    const char* b = m.data + panel * m.panel_bytes();
    if constexpr (Kind::DEPTH == 1) {
        if (rows >= MANY) {
            // DEEP of k at a time: that part of a panel stays in the first-level cache for all rows
            for (long k = 0; k < m.words; k += DEEP) {
                const long depth = m.words - k < DEEP ? m.words - k : DEEP, right = k * C * LANES;
                const auto *left = reinterpret_cast<const uint32_t*>(a.data) + k, *words = reinterpret_cast<const uint32_t*>(b);
                for (int c = 0; c + COLUMNS <= C; c += COLUMNS)
                    product<Fp32, COLUMNS, false>(room + c * LANES, C * LANES, rows, k > 0, depth, left, a.stride / 4, 1,
                                                  words + right + c * LANES, C * LANES, LANES);
                if constexpr (C % COLUMNS != 0)
                    product<Fp32, 1, false>(room + (C - 1) * LANES, C * LANES, rows, k > 0, depth, left, a.stride / 4, 1,
                                            words + right + (C - 1) * LANES, C * LANES, LANES);
            }
            for (long row = 0; row < rows; row++) f(row, reinterpret_cast<const Floats*>(room + row * C * LANES));
            return;
        }
    }
    for (long row = 0; row < rows; row += MOST_ROWS) {
        const int count = rows - row < MOST_ROWS ? static_cast<int>(rows - row) : MOST_ROWS;
        Floats done[MOST_ROWS][C];
        with_rows<MOST_ROWS>(count, [&]<int R>() {
            typename Kind::Sum acc[R][C]{};
            accumulate<Kind, R, C>(acc, m.words, a.data + row * a.stride, a.stride, b);
#pragma GCC unroll 6
            for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
                for (int c = 0; c < C; c++) {
                    if constexpr (Kind::QUANTIZED) {
                        const long at = (panel * C + c) * LANES;
                        Ints sum = acc[r][c] - load_as<Ints>(m.sums + at);
                        done[r][c] = __builtin_convertvector(sum, Floats) * (load(m.scale + at) * a.scale[row + r]);
                    } else {
                        done[r][c] = acc[r][c];
                    }
                }
            }
        });
        for (int r = 0; r < count; r++) f(row + r, done[r]);
    }
    }
}

// x [n] -> u [padded], s: see above. Values beyond n count as zero. NaN or infinity in x make s NaN.
inline float quantize(uint8_t* to, const float* x, long n, long padded) {
    Floats largest{}, difference{};
    for (long k = 0; k < n; k += LANES) {
        Floats v = load_first(x + k, n - k < LANES ? static_cast<int>(n - k) : LANES);
        largest = max(largest, max(v, -v));
        difference += v - v;  // 0, or NaN
    }
    float most = 0;
    for (int lane = 0; lane < LANES; lane++) most = largest[lane] > most ? largest[lane] : most;
    const float inverse = most > 0 ? 127.f / most : 0.f;
    typedef uint8_t Bytes __attribute__((vector_size(LANES)));
    for (long k = 0; k < padded; k += LANES) {
        const long left = n - k;
        Floats v = load_first(x + (left > 0 ? k : 0), left >= LANES ? LANES : left > 0 ? static_cast<int>(left) : 0);
        v *= inverse;
#if defined(__SSE2__)
        asm("" : "+x"(v));  // rounded here, on every instruction set: no multiply-add with what follows
#endif
        Floats shifted = v + 12582912.f;  // 1.5 · 2^23: the nearest integer, ties to even, in the low bits
        Bytes bytes = __builtin_convertvector((load_as<Ints>(&shifted) + 128) & 255, Bytes);
        memcpy(to + k, &bytes, padded - k < LANES ? padded - k : LANES);
    }
    return most / 127.f + sum(difference);
}

}  // namespace elman::ELMAN_ISA
