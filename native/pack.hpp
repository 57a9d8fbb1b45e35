// Activations laid out as the register tile reads them: by panels of PANEL columns, depth outside.
// Each word holds Kind::DEPTH consecutive k; what is missing is zero.
#pragma once

#include <algorithm>

#include "matrix.hpp"

namespace elman::ELMAN_ISA {

// from [n, H] -> to [columns / PANEL][depth][PANEL], column = row of `from`: its transpose. n <= columns < n + PANEL;
// the columns that are added repeat the last row: of zeros and an infinite weight a product would be NaN.
template <class Kind> void pack_transposed(uint32_t* to, const float* from, long n, long H, long columns) {
    const long depth = words_of<Kind>(H), last = (n - 1) % PANEL;
    for (long column = 0; column < columns; column += PANEL, to += depth * PANEL)
        pack_columns<Kind>(to, COLUMNS, from + column * H, n - column, H);
    for (uint32_t* word = to - depth * PANEL; word < to; word += PANEL)
        for (long c = last + 1; c < PANEL; c++) word[c] = word[last];
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

// from [n, H] -> bfloat16 twice: `along` [n][ceil(H / 2)] words of consecutive columns, as `a` is read, and, unless
// null, `across` [ceil(n / 2)][H] words of consecutive rows, as `b` is read.
inline void pack_bf16(uint32_t* along, uint32_t* across, const float* from, long n, long H) {
    const long depth = (H + 1) / 2;
    for (long r = 0; r < n; r++, from += H, along += depth) {
        copy_words<Bf16>(along, from, H);
        if (!across || r % 2) continue;
        const float* next = r + 1 < n ? from + H : nullptr;
        for (long k = 0; k < H; k += LANES) {
            const int lanes = static_cast<int>(H - k);
            if (lanes >= LANES) {
                Words pair = bf16_pair(load(from + k), next ? load(next + k) : Floats{});
                memcpy(across + k, &pair, sizeof pair);
            } else {
                Words pair = bf16_pair(load_first(from + k, lanes), next ? load_first(next + k, lanes) : Floats{});
                memcpy(across + k, &pair, static_cast<size_t>(lanes) * 4);
            }
        }
        across += H;
    }
}

}  // namespace elman::ELMAN_ISA
