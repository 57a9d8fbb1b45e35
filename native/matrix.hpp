// Matrix products of the recurrent layers, for one thread: packing, and rows × one panel of columns.
//
// Every right-hand matrix is packed once per window into panels of COLUMNS vectors, the last panel one vector
// where their number is odd: [panel][word of k][columns], missing columns and k zero. A panel is then one run of
// memory, needs no mask, and is what a thread keeps in its cache: 650 × 2 × 16 × 4 = 83 kB for H = 650.
#pragma once

#include "tile.hpp"

namespace elman::ELMAN_ISA {

constexpr long vectors_of(long n) { return (n + LANES - 1) / LANES; }
constexpr long columns_at(long vector, long vectors) { return vectors - vector >= COLUMNS ? COLUMNS : 1; }
template <class Kind> constexpr long words_of(long n) { return (n + Kind::DEPTH - 1) / Kind::DEPTH; }

// Rows at an odd multiple of 64 bytes: at a multiple of 4 KiB a tile's 13 rows would share the 12 ways of one set
// of the first-level cache.
constexpr long stride_of(long floats) {
    const long lines = (floats + 15) / 16;
    return (lines | 1) * 16;
}

constexpr long ALIASED = 512;  // floats of a row, or a multiple: 2 KiB, so that it is copied with such a stride first
constexpr int FEW_LEFT = 4;    // rows of a tile below which the latency of a sum would be the speed:
constexpr int DEALT = 4;       // k is then dealt to so many partial sums

// One product of a sum: a(r, k) = a[r · row + k · step], k = 0 … depth - 1, and a packed panel b of as many words of k.
struct Product {
    const uint32_t* a;
    long row, step, depth;
    const uint32_t* b;
};

// Up to four products that are added up in one tile.
struct Products {
    int count = 0;
    Product each[4];

    void add(const Product& one) { each[count++] = one; }
};

// What row r of a sum begins with: from[r · row], or from[index[r] · row]; row 0: the same for each; null: zeros.
struct From {
    const float* at = nullptr;
    long row = 0;
    const int64_t* index = nullptr;

    From after(long rows) const { return index ? From{at, row, index + rows} : From{at ? at + rows * row : at, row}; }
    const float* of(long r) const { return at + (index ? index[r] : r) * row; }
};

// With fewer than FEW_LEFT rows
template <class Kind, int R, int C>
ELMAN_INLINE void multiply_few(Tile<R, C>& acc, long K, const uint32_t* a, long a_row, long a_k, const uint32_t* b) {
    Tile<R, C> part[DEALT - 1]{};
    long k = 0;
    for (; k + DEALT <= K; k += DEALT, a += DEALT * a_k, b += DEALT * C * LANES) {
#pragma GCC unroll 4
        for (int p = 0; p < DEALT; p++) {
            Tile<R, C>& into = p ? part[p - 1] : acc;
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
#pragma GCC unroll 2
                for (int c = 0; c < C; c++)
                    into.at[r][c] = Kind::multiply_add(into.at[r][c], a[r * a_row + p * a_k],
                                                       load_as<Words>(b + (p * C + c) * LANES));
            }
        }
    }
    if (k < K) multiply<Kind, R, C>(acc, K - k, a, a_row, a_k, b, C * LANES);
#pragma GCC unroll 4
    for (int p = 0; p < DEALT - 1; p++)
        for (int r = 0; r < R; r++)
            for (int c = 0; c < C; c++) acc.at[r][c] += part[p].at[r][c];
}

// to[r][·] = from[r][·] + Σ_k a(r, k) b[k][·] of each product, C vectors wide, of whose last only `last` lanes exist in
// `to` and `from`. from may be `to`.
template <class Kind, int C, int R>
void tile_product(float* to, long to_row, const From& from, const Products& products, long first, int last) {
    Tile<R, C> tile{};
    if (R >= FEW_LEFT && to != from.at)  // while the product runs, the lines it goes to come closer
        for (int r = 0; r < R; r++)
            for (int c = 0; c < C; c++) __builtin_prefetch(to + r * to_row + c * LANES, 1, 2);
    if (from.at) {
        for (int r = 0; r < R; r++) {
            const float* row = from.of(r);
            for (int c = 0; c < C; c++)
                tile.at[r][c] = c == C - 1 && last < LANES ? load_first(row + c * LANES, last) : load(row + c * LANES);
        }
    }
    for (int i = 0; i < products.count; i++) {
        const Product& p = products.each[i];
        const uint32_t* a = p.a + first * p.row;
        if constexpr (R < FEW_LEFT) multiply_few<Kind, R, C>(tile, p.depth, a, p.row, p.step, p.b);
        else multiply<Kind, R, C>(tile, p.depth, a, p.row, p.step, p.b, C * LANES);
    }
    for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++) {
            float* at = to + r * to_row + c * LANES;
            if (c == C - 1 && last < LANES) store_first(at, tile.at[r][c], last);
            else store(at, tile.at[r][c]);
        }
}

// The same for any number of rows, in tiles of nearly equal height.
template <class Kind, int C>
void panel_product(float* to, long to_row, const From& from, long rows, const Products& products, int last) {
    const long tiles = (rows + ROWS - 1) / ROWS;
    for (long tile = 0; tile < tiles; tile++) {
        const long r = rows * tile / tiles, end = rows * (tile + 1) / tiles;
        with_rows<ROWS>(static_cast<int>(end - r), [&]<int R>() {
            tile_product<Kind, C, R>(to + r * to_row, to_row, from.after(r), products, r, last);
        });
    }
}

template <class Kind>
void panel_product(long columns, float* to, long to_row, const From& from, long rows, const Products& products,
                   int last = LANES) {
    if (columns == 1) panel_product<Kind, 1>(to, to_row, from, rows, products, last);
    else panel_product<Kind, 2>(to, to_row, from, rows, products, last);
}

// LANES words of a row of n floats, from word w on; zero beyond the end
template <class Kind> ELMAN_INLINE Words load_words(const float* row, long w, long n) {
    if (Kind::DEPTH == 2 && 2 * (w + LANES) <= n) return bf16_words(load(row + 2 * w), load(row + 2 * w + LANES));
    auto some = [&](long k) {
        const long left = n - k;
        return left >= LANES ? load(row + k) : left > 0 ? load_first(row + k, static_cast<int>(left)) : Floats{};
    };
    if constexpr (Kind::DEPTH == 1) {
        Floats values = some(w);
        return load_as<Words>(&values);
    } else {
        return bf16_words(some(2 * w), some(2 * w + LANES));
    }
}

// All words of a row of n floats
template <class Kind> ELMAN_INLINE void copy_words(uint32_t* to, const float* row, long n) {
    const long depth = words_of<Kind>(n);
    for (long w = 0; w < depth; w += LANES) {
        Words words = load_words<Kind>(row, w, n);
        if (depth - w >= LANES) memcpy(to + w, &words, sizeof words);
        else memcpy(to + w, &words, static_cast<size_t>(depth - w) * 4);
    }
}

// from [n, K], n <= columns · LANES -> to [word of k][columns · LANES], column = row of `from`: its transpose
template <class Kind> void pack_columns(uint32_t* to, long columns, const float* from, long n, long K) {
    const long depth = words_of<Kind>(K);
    for (long left = 0; left < columns * LANES; left += LANES)
        for (long w = 0; w < depth; w += LANES) {
            Words v[LANES];
            for (long i = 0; i < LANES; i++) v[i] = left + i < n ? load_words<Kind>(from + (left + i) * K, w, K) : Words{};
            transpose(v);
            for (long i = 0; i < LANES && w + i < depth; i++)
                memcpy(to + (w + i) * columns * LANES + left, &v[i], sizeof v[i]);
        }
}

// from [K rows, `from_row` apart; n columns] -> to [word of k][columns · LANES]. Of bfloat16 whole vectors are read.
template <class Kind, class From>
void pack_rows(uint32_t* to, long columns, const From* from, long from_row, long n, long K) {
    for (long w = 0; w < words_of<Kind>(K); w++)
        for (long c = 0; c < columns; c++, to += LANES) {
            const int left = static_cast<int>(n - c * LANES);
            auto row = [&](long k) {
                const From* at = from + k * from_row + c * LANES;
                if (k >= K) return Floats{};
                if constexpr (sizeof(From) == sizeof(float))
                    if (left < LANES) return load_first(at, left);
                return load_stored(at);
            };
            Words words;
            if constexpr (Kind::DEPTH == 1) {
                Floats values = row(w);
                words = load_as<Words>(&values);
            } else if constexpr (sizeof(From) == sizeof(float)) {
                words = bf16_pair(row(2 * w), row(2 * w + 1));
            } else {  // a bfloat16 is the upper half of its float32
                Floats low = row(2 * w), high = row(2 * w + 1);
                words = load_as<Words>(&low) >> 16 | load_as<Words>(&high);
            }
            memcpy(to, &words, sizeof words);
        }
}

constexpr int LEFT_VECTORS = (ROWS + LANES - 1) / LANES;

// from [K rows, `from_row` apart]; of each row, for each of `tiles` tiles, ROWS columns from columns[tile] on (whole
// vectors are read and written) -> to + tile · to_tile: [word][ROWS], as the tile reads its left-hand side;
// sums[tile][LEFT_VECTORS · LANES] += Σ_k. One row after the other, as they lie in memory.
template <class Kind>
void pack_left(uint32_t* to, long to_tile, const typename Kind::Stored* from, long from_row, const long* columns,
               long tiles, long K, float* sums) {
    for (long w = 0; w < words_of<Kind>(K); w++, to += ROWS) {
        const auto* row = from + w * Kind::DEPTH * from_row;
        const bool pair = Kind::DEPTH == 2 && 2 * w + 1 < K;
        for (long tile = 0; tile < tiles; tile++) {
            float* sum = sums + tile * LEFT_VECTORS * LANES;
#pragma GCC unroll 4
            for (int c = 0; c < LEFT_VECTORS; c++) {  // what is written beyond ROWS, the next word overwrites
                const auto* at = row + columns[tile] + c * LANES;
                Floats values = load_stored(at);
                Words words = load_as<Words>(&values);
                if constexpr (Kind::DEPTH == 2) {
                    Floats next = pair ? load_stored(at + from_row) : Floats{};
                    words = words >> 16 | load_as<Words>(&next);
                    values += next;
                }
                store(sum + c * LANES, load(sum + c * LANES) + values);
                memcpy(to + tile * to_tile + c * LANES, &words, sizeof words);
            }
        }
    }
}

}  // namespace elman::ELMAN_ISA
