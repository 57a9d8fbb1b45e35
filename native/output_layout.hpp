// Block sizes of the fused output layer and where the parts of one thread's scratch lie (output.cpp).
#pragma once

#include "output.hpp"
#include "tile.hpp"

namespace elman::ELMAN_ISA {

constexpr long GRAIN = 2 * ROWS;  // words; even, so that pairs of words stay with one thread
template <class Kind> constexpr long CHUNK = 4 * Kind::DEPTH * GRAIN;
constexpr long BLOCK_ROWS = 384;  // R at most, a multiple of PANEL
constexpr long FEW_CHUNKS = 4;    // a thread's share of so many stays in its cache: nothing is asked for ahead

// Where the parts of one thread's scratch lie, counted in 4-byte words, each part aligned to 64 bytes.
template <class Kind> struct OutputLayout {
    long R, depth_h, padded_h, total = 0;
    long hidden, exps, raw, by_pairs, scaled, shifts, dh, shift, sums, factor, targets, along, across;

    OutputLayout(const OutputTask& task, long rows, long words) {
        constexpr int DEPTH = Kind::DEPTH;
        constexpr long CHUNK = elman::ELMAN_ISA::CHUNK<Kind>;
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
        targets = part(R);                                                // l of each row's target: the first thread's
        along = DEPTH == 1 ? total : part(CHUNK * depth_h);               // a chunk of W, see pack.hpp
        across = DEPTH == 1 ? total : part(CHUNK / 2 * task.hidden_size);
    }

  private:
    long part(long count) {
        long at = total;
        total += round_up(count, 16);
        return at;
    }
};

// Rows in blocks of nearly equal size: one of a few rows would read and write all of W and dW for them alone.
inline long block_rows(const OutputTask& task) {
    const long blocks = (task.rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    return round_up((task.rows + blocks - 1) / blocks, PANEL);
}

}  // namespace elman::ELMAN_ISA
