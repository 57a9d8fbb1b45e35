// The one product of the streaming step: rows of activations times the columns of a panel.
#pragma once

#include "kernels.hpp"
#include "streaming_weights.hpp"

namespace elman::ELMAN_ISA {

constexpr long MANY = 2 * ROWS, DEEP = 128;            // from so many rows on, by blocks of depth
constexpr int STREAM_ROWS = REGISTERS == 32 ? 6 : 3;  // of a tile, beside at most 4 vectors of columns

// A packed matrix; every pointer into the memory of its model. In place: `data` is the stored matrix.
struct Packed {
    const char* data;
    const float* scale;    // int8: of each column, packed order
    const int32_t* sums;   // int8: 128 Σ_k q of each column
    long panels, words;    // words even
    int columns;           // C
    // Where stored rows are. Lane 0 of vector c is unit(panel, c) of `units` (units of a gate, or words) and stored
    // row row(panel, c); the other lanes follow. The vectors of a panel are the gates of the same units, row_step = H
    // and unit_step = 0, or other units of the one gate, row_step = unit_step = LANES.
    long units, panel_step, unit_step, row_step;

    long unit(long panel, int c) const { return panel * panel_step + c * unit_step; }
    long row(long panel, int c) const { return panel * panel_step + c * row_step; }
    int lanes(long panel, int c) const {
        const long left = units - unit(panel, c);
        return left > LANES ? LANES : left > 0 ? static_cast<int>(left) : 0;
    }
    long panel_bytes() const { return words * columns * VECTOR; }
};

struct Activations {
    const char* data;      // rows of words · Kind::STEP bytes
    long stride;           // bytes from row to row
    const float* scale;    // int8: of each row
    bool rounded = false;  // bfloat16, words · 4 bytes
};

// Whether so many rows are worth rounding to bfloat16.
template <class Kind> bool rounds(long rows) {
#if defined(__AVX512BF16__)
    return Kind::DEPTH == Bf16::DEPTH && rows >= MANY && bf16_is_faster();
#else
    return static_cast<void>(rows), false;
#endif
}

template <class Kind, int R, int C>
ELMAN_INLINE void accumulate(typename Kind::Sum (&acc)[R][C], long words, const char* a, long stride,
                             const char* b) {
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

// Many rows: DEEP words of k at a time; that part of a panel stays in the first-level cache for all rows.
template <class Kind, int C>
void many_rows(const Packed& m, long panel, const Activations& a, long rows, float* room) {
    constexpr int WIDTH = C * LANES;
    for (long k = 0; k < m.words; k += DEEP) {
        const long depth = m.words - k < DEEP ? m.words - k : DEEP;
        const auto* left = reinterpret_cast<const uint32_t*>(a.data) + k;
        const auto* right = reinterpret_cast<const uint32_t*>(m.data + panel * m.panel_bytes()) + k * WIDTH;
        for (int c = 0; c + COLUMNS <= C; c += COLUMNS)
            product<Kind, COLUMNS, false>(room + c * LANES, WIDTH, rows, k > 0, depth, left, a.stride / 4, 1,
                                          right + c * LANES, WIDTH, LANES);
        if constexpr (C % COLUMNS != 0)
            product<Kind, 1, false>(room + (C - 1) * LANES, WIDTH, rows, k > 0, depth, left, a.stride / 4, 1,
                                    right + (C - 1) * LANES, WIDTH, LANES);
    }
}

template <int C, class F>
ELMAN_INLINE void in_place_rows(const Packed& m, long panel, const Activations& a, long rows, const F& f) {
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
}

template <class Kind, int C, class F>
ELMAN_INLINE void few_rows(const Packed& m, long panel, const Activations& a, long rows, const F& f) {
    const char* b = m.data + panel * m.panel_bytes();
    for (long row = 0; row < rows; row += STREAM_ROWS) {
        const int count = rows - row < STREAM_ROWS ? static_cast<int>(rows - row) : STREAM_ROWS;
        Floats done[STREAM_ROWS][C];
        with_rows<STREAM_ROWS>(count, [&]<int R>() {
            typename Kind::Sum acc[R][C]{};
            accumulate<Kind, R, C>(acc, m.words, a.data + row * a.stride, a.stride, b);
#pragma GCC unroll 6
            for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
                for (int c = 0; c < C; c++) {
                    if constexpr (Kind::QUANTIZED) {
                        const long at = (panel * C + c) * LANES;
                        Ints sum = acc[r][c] - load_as<Ints>(m.sums + at);
                        Floats scale = load(m.scale + at) * a.scale[row + r];
                        done[r][c] = __builtin_convertvector(sum, Floats) * scale;
                    } else {
                        done[r][c] = acc[r][c];
                    }
                }
            }
        });
        for (int r = 0; r < count; r++) f(row + r, done[r]);
    }
}

// Calls f(row, v) for each row, v[C] its products with the columns of one panel. room: [rows, C · LANES].
template <class Kind, int C, class F>
ELMAN_INLINE void for_rows(const Packed& m, long panel, const Activations& a, long rows, float* room,
                           const F& f) {
    if constexpr (Kind::IN_PLACE) {
        in_place_rows<C>(m, panel, a, rows, f);
    } else if (a.rounded || (Kind::DEPTH == 1 && rows >= MANY)) {
        if (a.rounded) many_rows<Bf16, C>(m, panel, a, rows, room);
        else many_rows<Fp32, C>(m, panel, a, rows, room);
        for (long row = 0; row < rows; row++) f(row, reinterpret_cast<const Floats*>(room + row * C * LANES));
    } else {
        few_rows<Kind, C>(m, panel, a, rows, f);
    }
}

}  // namespace elman::ELMAN_ISA
