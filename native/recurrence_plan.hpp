// What forward and backward of a recurrent layer agree on: the order of the steps, the layout of what is saved, and
// who computes what.
//
// Hidden units go in blocks of COLUMNS vectors (PANEL units; the last block may be one vector). A thread owns a run
// of blocks, and of the block where its run is cut a run of the batch's rows; so 13 vectors divide evenly between two
// threads, and each reads the same weights at every step, from its own cache.
#pragma once

#include <vector>

#include "gru.hpp"
#include "lstm.hpp"
#include "matrix.hpp"
#include "recurrence.hpp"
#include "rnn.hpp"
#include "threads.hpp"
#include "workspace.hpp"

namespace elman::ELMAN_ISA {

// Forward. Without chunks a step reads all of W and U, with them all sums go to memory and back.
constexpr long STEP_ROWS = 8;           // no chunks from so many rows a step on,
constexpr long STEP_WORDS = 4 << 20;    // if W and U are no more than a third-level cache can be expected to keep
constexpr long CHUNK_FLOATS = 1 << 17;  // of sums, a thread: half a megabyte between product and step
constexpr long CHUNK_ROWS = 8 * ROWS;   // at least, or the weights are read for too few rows

// Backward.
constexpr long RUN = 1280;             // k of the last products, at most; even
constexpr long TILES = 16;             // packed left-hand sides of the last products
constexpr long ROW_BLOCK = 8 * ROWS;   // of da, used for all panels of W
constexpr int SUMMED = REGISTERS / 2;  // vectors that are added up at once where places share a row of x

constexpr long THREAD_WORK = 200000;  // operations of a step: less costs less than a second thread does at each
inline int worthwhile_threads(const RecurrenceShape& shape, long gates) {
    const double each = THREAD_WORK, step = 2.0 * static_cast<double>(shape.batch * gates * shape.hidden_size) *
                                    static_cast<double>(shape.hidden_size + shape.input_size);
    const double most = step / each + 1;
    return most < shape.threads ? static_cast<int>(most) : shape.threads;
}

struct Step {
    long row, rows;  // the first in [N, ·], and how many
};

template <class C> struct Plan {
    long T, B, D, H, N = 0, U;
    long vectors, padded;        // of H: ceil(H / LANES), and the units they hold
    long state_row;              // floats from row to row of a state
    long h_row;                  // words from row to row of h_prev
    std::vector<Step> steps;     // in the order taken

    // What is saved, each as the products take it (bfloat16 or float32), in words from the start:
    // gates [block][N][SAVED][units], then h_prev [N][units].
    long gates = 0, h_prev, saved;

    explicit Plan(const RecurrenceShape& s)
        : T(s.steps), B(s.batch), D(s.input_size), H(s.hidden_size), vectors(vectors_of(H)), padded(vectors * LANES),
          state_row(stride_of(padded)), steps(static_cast<size_t>(T)) {
        for (long t = 0; t < T; t++) {
            steps[static_cast<size_t>(s.reverse ? T - 1 - t : t)] = {N, s.batch_sizes[t]};
            N += s.batch_sizes[t];
        }
        U = s.rows ? s.table_rows : N;
        const long to_a_word = s.bf16 ? 2 : 1;
        h_row = stride_of(padded / to_a_word);
        h_prev = round_up(N * C::SAVED * padded / to_a_word, 16);
        saved = h_prev + N * h_row;
    }

    // Where row `row` of `rows` has the slots of one block, each columns · LANES floats.
    long slots_at(long row, long rows, long vector, long slots) const {
        return (vector * rows + row * columns_at(vector, vectors)) * slots * LANES;
    }
    long rows_at(long step) const { return step < 0 || step >= T ? 0 : steps[static_cast<size_t>(step)].rows; }
};

// Of a cell's FROM_X or FROM_H: the gate of which `slot` takes the product; -1: none.
template <int G> constexpr int gate_of(const int (&slots)[G], int slot) {
    for (int gate = 0; gate < G; gate++)
        if (slots[gate] == slot) return gate;
    return -1;
}

constexpr long PLACES_AHEAD = 12;  // that many places ahead are fetched, while those of one row are added up

// The places n of each row u of x, ascending: begin(u) … begin(u + 1); behind the last one PLACES_AHEAD more that are
// as good as any. Rows may be null: there are none then.
class Places {
  public:
    Places(const int64_t* rows, long N, long U) {
        if (!rows) return;
        first_.resize(static_cast<size_t>(U) + 1), order_.resize(static_cast<size_t>(N + PLACES_AHEAD));
        for (long n = 0; n < N; n++) first_[static_cast<size_t>(rows[n]) + 1]++;
        for (size_t u = 1; u < first_.size(); u++) first_[u] += first_[u - 1];
        std::vector<long> next(first_);
        for (long n = 0; n < N; n++) order_[static_cast<size_t>(next[static_cast<size_t>(rows[n])]++)] = n;
    }
    const long* begin(long u) const { return order_.data() + first_[static_cast<size_t>(u)]; }

  private:
    std::vector<long> first_, order_;
};

// Calls f(vector, columns, first row, end) for what member `me` has of the blocks of `vectors` vectors × `rows` rows.
template <class F> ELMAN_INLINE void for_blocks(const Member& me, long vectors, long rows, const F& f) {
    struct Cut {
        long vector, row;
    };
    auto cut = [&](int index) -> Cut {
        const long place = vectors * rows * index / me.count, block = place / (COLUMNS * rows);
        return {block * COLUMNS, place % (COLUMNS * rows) / columns_at(block * COLUMNS, vectors)};
    };
    const Cut begin = cut(me.index), end = cut(me.index + 1);
    for (long vector = begin.vector; vector <= end.vector && vector < vectors; vector += COLUMNS) {
        const long from = vector == begin.vector ? begin.row : 0, to = vector == end.vector ? end.row : rows;
        if (from < to) f(vector, columns_at(vector, vectors), from, to);
    }
}

// Aligned runs of floats or words in one workspace.
class Parts {
  public:
    long add(long floats) {
        const long at = total_;
        total_ += round_up(floats, 16);
        return at;
    }
    size_t bytes() const { return static_cast<size_t>(total_) * 4; }

  private:
    long total_ = 0;
};

// from [rows, n] -> words, for `me`'s share of the rows
template <class Kind>
void convert_rows(uint32_t* to, long to_row, const float* from, long rows, long n, const Member& me) {
    const auto [begin, end] = me.share(rows);
    for (long r = begin; r < end; r++)
        for (long w = 0; w < to_row; w += LANES) {
            Words words = load_words<Kind>(from + r * n, w, n);
            memcpy(to + r * to_row + w, &words, sizeof words);
        }
}

// n floats with zeros behind them, to a row of whole vectors; null: zeros
template <class To> void copy_padded(To* to, const float* from, long n) {
    for (long k = 0; k < n; k += LANES)
        store_as(to + k, from ? load_first(from + k, n - k < LANES ? static_cast<int>(n - k) : LANES) : Floats{});
}

}  // namespace elman::ELMAN_ISA
