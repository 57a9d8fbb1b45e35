// A whole recurrent language model as one object: a call per token for embedding, layers and next-token
// log-probabilities, with the weights packed once in the order in which a step reads them, or read in place.
//
// Axes as in kernels.hpp. One stream reads every weight once per token, so the time is that of moving them:
// bfloat16 halves and int8 quarters it. B streams side by side read them once for all.
#pragma once

#include <cstdint>

namespace elman {

enum class StreamCell : int { rnn_tanh, rnn_relu, lstm, gru };
// in_place: float32, not packed but read where the caller keeps it: what changes there counts at once.
enum class StreamWeights : int { float32, bfloat16, int8, in_place };

// [rows, columns], rows contiguous: float (float32, in_place), uint16_t (bits of a bfloat16) or int8_t.
// In int8, row r stands for scale[r] · q[r], q in -127 … 127; `scale` is null otherwise.
struct StreamMatrix {
    const void* data;
    const float* scale;
};

struct StreamLayer {
    StreamMatrix input;      // [G·H, D], D = E in the first layer, else H
    StreamMatrix recurrent;  // [G·H, H]
    const float *bias_input, *bias_recurrent;  // [G·H]
};

struct StreamSource {
    StreamCell cell;
    StreamWeights weights;
    long vocabulary_size, embedding_size, hidden_size, layers;  // each at least 1
    StreamMatrix embedding;  // [V, E]
    const StreamLayer* layer;  // [layers]
    StreamMatrix output;       // [V, H]
    const float* output_bias;  // [V]
};

// How the next token is drawn, as generate.py has it: one token excluded, temperature, top-k, top-p.
struct StreamDraw {
    double temperature;     // 0: the most probable, ties to the smaller id
    long top_k;             // 0: all
    double top_p;           // 1: all
    int64_t excluded;       // never drawn; -1: none
    const double* uniform;  // [B] in [0, 1)
    int64_t* tokens;        // [B], written; -1 where nothing has probability
    float* nats;            // [B], written: -log P before any filter
};

struct StreamCall {
    long steps, batch;      // T, B, each at least 1
    const int64_t* tokens;  // [T, B], each in 0 … V-1 (the caller has checked)
    const float *h, *c;     // [L, B, H] before; c null where the cell has none
    float *h_after, *c_after;  // [L, B, H]; may be the same memory as h and c
    float* log_probs;          // [B, V] after the last step, or null
    const int64_t* targets;    // [T, B], checked, with
    float* nats;               // [T, B] written: -log P(target) after each step; or both null
    const StreamDraw* draw;    // after the last step, or null
    long best;                 // so many of the most probable after the last step, best first; 0: none
    int64_t* best_tokens;      // [B, best]
    float* best_log_probs;     // [B, best]
    int threads;
};

struct StreamKernels;

// Packed for one instruction set, whose kernels alone can run it. Any number of calls may run at once.
struct StreamModel {
    const StreamKernels* kernels;
};

struct StreamKernels {
    StreamModel* (*pack)(const StreamSource&);  // copies what it needs; throws std::bad_alloc
    void (*run)(const StreamModel&, const StreamCall&);
    void (*free)(StreamModel*);
};

}  // namespace elman
