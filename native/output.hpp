// The output layer of a language model: linear, softmax, cross-entropy and their gradients in one pass.
//
//     l = W h + b        -log P(target) = log Σ_v exp(l_v) - l_target        dl_v = g (P_v - [v = target])
//     dh = Wᵀ dl         dW = Σ_rows dl hᵀ                                    db = Σ_rows dl
//
// N rows, H hidden size, V vocabulary. The N × V logits never exist: see output.cpp.
#pragma once

#include <cstdint>

namespace elman {

struct OutputTask {
    long rows, hidden_size, vocabulary_size;  // N, H, V; V at least 1 where N is
    const float* hidden;                      // [N, H]
    const float* weight;                      // [V, H]
    const float* bias;                        // [V] or null
    const int64_t* targets;                   // [N], each in 0 … V-1 (the caller has checked)
    float* nats;                              // [N] or null
    // Gradients of Σ_r gradient[r] · nats[r]; null gradient: none are computed. Each result may be null.
    const float* gradient;  // [N]
    float* dhidden;         // [N, H], overwritten
    float* dweight;         // [V, H], overwritten
    float* dbias;           // [V], overwritten
    int threads;
    bool bf16;  // W, h and P rounded to bfloat16 before each product; sums, softmax and results in float32
};

struct OutputKernels {
    void (*nats)(const OutputTask&);
};

}  // namespace elman
