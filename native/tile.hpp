// The register tile: the one inner loop of every matrix product here.
//
//     acc[r][c] += Σ_k  a(r, k) · b[k][c]        r < R rows, c < C vectors of LANES lanes
//
// `a` is read a word at a time and broadcast, by rows or by columns (a_row, a_k are any strides), so that
// weights and activations are used where they lie; `b` is read a vector at a time, lanes contiguous.
// A word is 4 bytes: one float32, or two consecutive k of bfloat16, the lower k in the lower half.
//
// 13 × 2 vectors fill AVX-512's 32 registers: 26 accumulators, 2 of b, 1 broadcast; 15 loads serve 26
// multiply-adds, which keeps both multiply-add units busy. 6 × 2 does the same for 16 registers.
#pragma once

#include "vectors.hpp"

namespace elman::ELMAN_ISA {

constexpr int COLUMNS = 2;
constexpr int ROWS = REGISTERS == 32 ? 13 : 6;
constexpr int PANEL = COLUMNS * LANES;  // columns of a tile

struct Fp32 {
    static constexpr int DEPTH = 1;  // k per word
    using Stored = float;
    ELMAN_INLINE Floats multiply_add(Floats sum, uint32_t a, Words b) {
        float x;
        memcpy(&x, &a, 4);
        return sum + broadcast(x) * load_as<Floats>(&b);
    }
};

struct Bf16 {
    static constexpr int DEPTH = 2;
    using Stored = uint16_t;
    ELMAN_INLINE Floats multiply_add(Floats sum, uint32_t a, Words b) {
#if defined(__AVX512BF16__)
        return Floats(_mm512_dpbf16_ps(__m512(sum), __m512bh(broadcast_word(a)), __m512bh(b)));
#else
        // a bfloat16 is the upper half of the float32 of the same value
        Words low = b << 16, high = b & 0xffff0000u;
        uint32_t a_low = a << 16, a_high = a & 0xffff0000u;
        float x, y;
        memcpy(&x, &a_low, 4);
        memcpy(&y, &a_high, 4);
        return sum + broadcast(x) * load_as<Floats>(&low) + broadcast(y) * load_as<Floats>(&high);
#endif
    }
};

// As a product of this kind rounds what it takes.
template <class Kind> ELMAN_INLINE Floats rounded(Floats x) {
    if constexpr (Kind::DEPTH == 1) return x;
    Words bits = bf16_bits(x) << 16;
    return load_as<Floats>(&bits);
}

template <int R, int C> struct Tile {
    Floats at[R][C];
};

// K words deep. Strides in words. `last` < LANES: only so many lanes of the last vector of b exist.
template <class Kind, int R, int C, bool PARTIAL = false>
ELMAN_INLINE void multiply(Tile<R, C>& acc, long K, const void* a, long a_row, long a_k, const void* b, long b_k,
                           int last = LANES) {
    // One pointer for three rows: x86 adds 0, 1 or 2 strides for nothing, and 13 pointers would not fit.
    constexpr int GROUPS = (R + 2) / 3;
    const char* rows[GROUPS];
    const char* right_row = static_cast<const char*>(b);
    const long stride = a_row * 4;
#pragma GCC unroll 8
    for (int g = 0; g < GROUPS; g++) rows[g] = static_cast<const char*>(a) + 3 * g * stride;
    for (long k = 0; k < K; k++) {
        Words right[C];
#pragma GCC unroll 4
        for (int c = 0; c < C; c++) {
            const void* from = right_row + 4 * c * LANES;
            if (PARTIAL && c == C - 1) {
                Floats some = load_first(static_cast<const float*>(from), last);
                memcpy(&right[c], &some, sizeof some);
            } else {
                right[c] = load_as<Words>(from);
            }
        }
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            uint32_t left;
            memcpy(&left, rows[r / 3] + (r % 3) * stride, 4);
#pragma GCC unroll 4
            for (int c = 0; c < C; c++) acc.at[r][c] = Kind::multiply_add(acc.at[r][c], left, right[c]);
        }
#pragma GCC unroll 8
        for (int g = 0; g < GROUPS; g++) {
            rows[g] += a_k * 4;
#if defined(__x86_64__)
            asm("" : "+r"(rows[g]));  // or the compiler derives all from one pointer again, and spills
#endif
        }
        right_row += b_k * 4;
    }
}

// Calls f.template operator()<R>() with R = rows, 1 <= rows <= MOST.
template <int MOST, class F> ELMAN_INLINE void with_rows(int rows, const F& f) {
    if constexpr (MOST > 1) {
        if (rows < MOST) return with_rows<MOST - 1>(rows, f);
    }
    f.template operator()<MOST>();
}

// f.template operator()<C, PARTIAL>(column, last) for every panel of `width` columns.
template <class F> ELMAN_INLINE void for_panels(long width, const F& f) {
    long column = 0;
    for (; column + PANEL <= width; column += PANEL) f.template operator()<COLUMNS, false>(column, LANES);
    const long rest = width - column;
    if (rest > LANES) f.template operator()<2, true>(column, static_cast<int>(rest - LANES));
    else if (rest > 0) f.template operator()<1, true>(column, static_cast<int>(rest));
}

// Memory that will be needed later, asked for a few lines at a time while tiles are computed: the processor itself
// looks ahead no further than a page, and a tile's rows are too many streams for it.
class Ahead {
  public:
    explicit Ahead(long tiles) : tiles_(tiles) {}
    template <class T> void add(const T* from, long count) {  // count <= 0: nothing
        if (count <= 0) return;
        const long bytes = count * static_cast<long>(sizeof(T));
        runs_[used_++] = {reinterpret_cast<const char*>(from), bytes, (bytes / 64 + tiles_ - 1) / tiles_ * 64, 0};
    }
    void fetch() {  // a tile's share of it
        for (int i = 0; i < used_; i++) {
            Run& run = runs_[i];
            for (const long end = run.at + run.each; run.at < end && run.at < run.bytes; run.at += 64)
                __builtin_prefetch(run.from + run.at, 0, 2);
        }
    }

  private:
    struct Run {
        const char* from;
        long bytes, each, at;
    };
    Run runs_[2];
    int used_ = 0;
    long tiles_;
};

// to[r][·] (= | +=) Σ_k a(r, k) b[k][·] for `rows` rows and the C vectors at one panel
template <class Kind, int C, bool PARTIAL>
ELMAN_INLINE void product(float* to, long to_row, long rows, bool add, long K, const uint32_t* a, long a_row, long a_k,
                          const uint32_t* b, long b_k, int last, Ahead* ahead = nullptr) {
    for (long r = 0; r < rows; r += ROWS) {
        if (ahead) ahead->fetch();
        with_rows<ROWS>(static_cast<int>(rows - r < ROWS ? rows - r : ROWS), [&]<int M>() {
            Tile<M, C> tile{};
            float* out = to + r * to_row;
            if (add) {
#pragma GCC unroll 16
                for (int m = 0; m < M; m++)
#pragma GCC unroll 4
                    for (int c = 0; c < C; c++)
                        tile.at[m][c] = PARTIAL && c == C - 1 ? load_first(out + m * to_row + c * LANES, last)
                                                              : load(out + m * to_row + c * LANES);
            }
            multiply<Kind, M, C, PARTIAL>(tile, K, a + r * a_row, a_row, a_k, b, b_k, last);
#pragma GCC unroll 16
            for (int m = 0; m < M; m++)
#pragma GCC unroll 4
                for (int c = 0; c < C; c++) {
                    if (PARTIAL && c == C - 1) store_first(out + m * to_row + c * LANES, tile.at[m][c], last);
                    else store(out + m * to_row + c * LANES, tile.at[m][c]);
                }
        });
    }
}

}  // namespace elman::ELMAN_ISA
