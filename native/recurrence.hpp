// One direction of one recurrent layer over a whole window, forward and backward.
//
//     RNN   a = W x + b + U h' + c              h = tanh(a) or relu(a)
//     LSTM  a_i, a_f, a_g, a_o = W x + b + U h' + c        s = f s' + i g           h = o tanh(s)
//     GRU   r, z = sigmoid(W x + b + U h' + c)             n = tanh(W x + b + r (U h' + c))
//           h = (1 - z) n + z h'
//
// with h', s' the state one step before; the readable form is src/elman/cells. Axes as in kernels.hpp. Rows are
// ordered by time, then batch: step t has the first batch_sizes[t] rows of the batch (never growing with t), so
// N = Σ batch_sizes. In reverse the last step comes first, and a row joins with its own first state.
//
// Where x is looked up, x = table[rows], as tokens are in an embedding, W x is made once for each of the U rows of the
// table and looked up too, and in backward da is first summed over the places that share a row.
#pragma once

#include <cstddef>
#include <cstdint>

namespace elman {

enum class Cell : int { rnn_tanh, rnn_relu, lstm, gru };

struct RecurrenceShape {
    Cell cell;
    long steps, batch, input_size, hidden_size;  // T, B = batch_sizes[0], D, H, each at least 1
    const int64_t* batch_sizes;                  // [T], each at least 1
    bool reverse;
    const int64_t* rows;  // [N], each in 0 … U-1: the row of x at each place; null: its own, and U = N
    long table_rows;      // U, at least 1; unused where `rows` is null
    int threads;
    bool bf16;  // x, h, weights and gradients of sums rounded to bfloat16 before each product, and so are the gates and
                // states that backward finds saved; the rest is float32
};

struct RecurrenceWeights {  // as torch.nn keeps them
    const float *weight_ih, *weight_hh;  // [G·H, D], [G·H, H]
    const float *bias_ih, *bias_hh;      // [G·H], or both null
};

struct RecurrenceForward {
    RecurrenceShape shape;
    RecurrenceWeights weights;
    const float* x;                // [U, D]
    const float *h_first, *c_first;  // [B, H]; c is null but in the LSTM
    float* output;                 // [N, H]
    float *h_last, *c_last;        // [B, H]
    float* saved;                  // for backward: `saved_floats` of them, aligned to 64 bytes; null: nothing is kept
};

struct RecurrenceBackward {
    RecurrenceShape shape;
    RecurrenceWeights weights;
    const float* x;
    const float* saved;                            // as forward left it
    const float *doutput, *dh_last, *dc_last;      // as output, h_last, c_last; null: zeros
    float* dx;                                     // [U, D] or null, overwritten, as all below
    float *dh_first, *dc_first;                    // [B, H] or null
    float *dweight_ih, *dweight_hh, *dbias_ih, *dbias_hh;  // as the weights, each may be null
};

struct RecurrenceKernels {
    size_t (*saved_floats)(const RecurrenceShape&);  // differs between instruction sets, as their lanes do
    void (*forward)(const RecurrenceForward&);
    void (*backward)(const RecurrenceBackward&);
};

}  // namespace elman
