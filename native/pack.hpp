// Activations laid out as the register tile reads them: by panels of PANEL columns, depth outside.
// Each word holds Kind::DEPTH consecutive k; what is missing is zero.
#pragma once

#include "tile.hpp"

namespace elman::ELMAN_ISA {

template <class Kind> ELMAN_INLINE uint32_t word_of(float low, float high) {
    uint32_t bits, other;
    memcpy(&bits, &low, 4);
    if constexpr (Kind::DEPTH == 1) return bits;
    memcpy(&other, &high, 4);
    auto rounded = [](uint32_t x) {
        return (x & 0x7fffffffu) > 0x7f800000u ? (x >> 16) | 0x40u : (x + 0x7fffu + ((x >> 16) & 1u)) >> 16;
    };
    return rounded(bits) | rounded(other) << 16;
}

// Words k, k + 1, … of `row` [H], as many as `count` <= LANES says; zero beyond H.
template <class Kind> ELMAN_INLINE Words words_of(const float* row, long H, long word, int count) {
    if constexpr (Kind::DEPTH == 1) {
        Floats some = load_first(row + word, count);
        return load_as<Words>(&some);
    } else {
        Words out{};
        for (int i = 0; i < count; i++) {
            const long k = 2 * (word + i);
            out[i] = word_of<Kind>(row[k], k + 1 < H ? row[k + 1] : 0.f);
        }
        return out;
    }
}

// from [n, H] -> to [columns / PANEL][depth][PANEL], column = row of `from`: its transpose. columns >= n
template <class Kind> void pack_transposed(uint32_t* to, const float* from, long n, long H, long columns) {
    const long depth = (H + Kind::DEPTH - 1) / Kind::DEPTH;
    for (long column = 0; column < columns; column += LANES) {
        uint32_t* out = to + column / PANEL * depth * PANEL + column % PANEL;
        for (long d = 0; d < depth; d += LANES) {
            const int count = static_cast<int>(depth - d < LANES ? depth - d : LANES);
            Words block[LANES];
            for (int i = 0; i < LANES; i++)
                block[i] = column + i < n ? words_of<Kind>(from + (column + i) * H, H, d, count) : Words{};
            transpose(block);
            for (int i = 0; i < count; i++) memcpy(out + (d + i) * PANEL, &block[i], sizeof block[i]);
        }
    }
}

// factor[r] · from[r][·], r < n -> to [ceil(H / PANEL)][rows / DEPTH][PANEL], depth = row of `from`. rows >= n
template <class Kind>
void pack_scaled(uint32_t* to, const float* from, const float* factor, long n, long H, long rows) {
    const long depth = rows / Kind::DEPTH;
    for (long left = 0; left < H; left += PANEL) {
        for (long d = 0; d < depth; d++) {
            uint32_t* out = to + left / PANEL * depth * PANEL + d * PANEL;
            for (long c = 0; c < PANEL; c += LANES) {
                long at = left + c;
                int lanes = at + LANES <= H ? LANES : at < H ? static_cast<int>(H - at) : 0;
                auto scaled = [&](long r) {
                    return r < n && lanes ? load_first(from + r * H + at, lanes) * factor[r] : Floats{};
                };
                Words words;
                if constexpr (Kind::DEPTH == 1) {
                    Floats only = scaled(d);
                    words = load_as<Words>(&only);
                } else {
                    words = bf16_pair(scaled(2 * d), scaled(2 * d + 1));
                }
                memcpy(out + c, &words, sizeof words);
            }
        }
    }
}

// from [n, H] -> bfloat16 twice: `along` [n][ceil(H / 2)] words of consecutive columns, as `a` is read, and
// `across` [ceil(n / 2)][H] words of consecutive rows, as `b` is read.
inline void pack_bf16(uint32_t* along, uint32_t* across, const float* from, long n, long H) {
    const long depth = (H + 1) / 2;
    for (long r = 0; r < n; r++) {
        const float* row = from + r * H;
        auto* halves = reinterpret_cast<uint16_t*>(along + r * depth);
        long k = 0;
        for (; k + LANES <= H; k += LANES) store_bf16(halves + k, load(row + k));
        for (; k < 2 * depth; k++) halves[k] = static_cast<uint16_t>(word_of<Bf16>(k < H ? row[k] : 0.f, 0.f));
    }
    for (long r = 0; r < n; r += 2) {
        const float *first_row = from + r * H, *second = r + 1 < n ? first_row + H : nullptr;
        uint32_t* out = across + r / 2 * H;
        long k = 0;
        for (; second && k + LANES <= H; k += LANES) {
            Words pair = bf16_pair(load(first_row + k), load(second + k));
            memcpy(out + k, &pair, sizeof pair);
        }
        for (; k < H; k++) out[k] = word_of<Bf16>(first_row[k], second ? second[k] : 0.f);
    }
}

}  // namespace elman::ELMAN_ISA
