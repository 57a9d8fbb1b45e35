// An embedding and its gradient: each token's row of the table gets what came for its places in the text.
//
//     forward: x[n] = W[tokens[n]]        so: dW[v] = Σ_{n: tokens[n] = v} dx[n], and 0 for every other v
//
// And the distinct tokens of a text, each of which need be looked up only once.
#pragma once

#include <cstdint>

namespace elman {

constexpr long IDS_A_BLOCK = 64;  // of `distinct`: one bit each

// tokens [rows], each in 0 … vocabulary_size-1 (the caller has checked, here and below); weight [vocabulary_size, size];
// x [rows, size], overwritten
void gather(const int64_t* tokens, long rows, long size, const float* weight, float* x, int threads);

// tokens [rows]; doutput [rows, size];
// dweight [vocabulary_size, size], overwritten. The order of the sums is that of the text, for any number of threads.
void embedding_gradient(const int64_t* tokens, long rows, long size, const float* doutput, long vocabulary_size,
                        float* dweight, int threads);

// ids [count]: the distinct ones among them, rising, in `tokens` (room for `count`), and in rows [count] which of these
// each place has: tokens[rows[n]] = ids[n]. Returns how many.
long distinct(const int64_t* ids, long count, long vocabulary_size, int64_t* tokens, int64_t* rows);

}  // namespace elman
