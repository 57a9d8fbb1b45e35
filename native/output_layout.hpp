// Block sizes of the fused output layer and where the parts of one thread's scratch lie (output.cpp).
#pragma once

#include <algorithm>

#include "output.hpp"
#include "tile.hpp"

namespace elman::ELMAN_ISA {

constexpr long GRAIN = 2 * ROWS;  // words; even, so that pairs of words stay with one thread
constexpr long CHUNK = 4 * GRAIN;
constexpr long MOST_ROWS = 256;   // of R, a multiple of PANEL
constexpr float SLACK = 20.f;     // E <= exp(20): far from overflow, and sums of it too

// Where the parts of one thread's scratch lie, counted in 4-byte words, each part aligned to 64 bytes.
template <class Kind> struct OutputLayout {
    long R, depth_h, padded_h, total = 0;
    long hidden, exps, raw, by_pairs, scaled, shifts, dh, shift, sums, factor, along, across;

    OutputLayout(const OutputTask& task, long rows, long words) {
        constexpr int DEPTH = Kind::DEPTH;
        const long chunks = (words + CHUNK - 1) / CHUNK;
        R = rows, depth_h = (task.hidden_size + DEPTH - 1) / DEPTH;
        padded_h = round_up(task.hidden_size, PANEL);
        const long kept = task.gradient ? chunks : 1;
        hidden = part(R * depth_h);                                       // hᵀ [R / PANEL][depth_h][PANEL]
        exps = part(kept * CHUNK * R / DEPTH);                            // E [words][R]
        raw = DEPTH == 1 ? exps : part(CHUNK * R);                        // l of one chunk, float32
        by_pairs = DEPTH == 1 ? exps : part(CHUNK / 2 * R);               // E of one chunk [words / 2][R][2]
        scaled = part(R / DEPTH * padded_h);                              // f h [padded_h / PANEL][R][PANEL]
        shifts = part(kept * R);                                          // of each chunk
        dh = part(R * padded_h);                                          // Eᵀ W
        shift = part(R), sums = part(R), factor = part(R);                // of the last chunk; S; f
        along = DEPTH == 1 ? total : part(words * depth_h);               // W in bfloat16, see pack.hpp
        across = DEPTH == 1 ? total : part((words + 1) / 2 * task.hidden_size);
    }

  private:
    long part(long count) {
        long at = total;
        total += round_up(count, 16);
        return at;
    }
};

// hᵀ and dh, R × H × 4 bytes each, take at most about 350 kB
inline long block_rows(const OutputTask& task) {
    const long most = std::clamp(88'000 / task.hidden_size / PANEL * PANEL, 2L * PANEL, MOST_ROWS);
    return std::min(most, round_up(task.rows, PANEL));
}

}  // namespace elman::ELMAN_ISA
