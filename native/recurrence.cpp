// A recurrent layer forward (recurrence.hpp), one source for every instruction set and cell.
//
//   once        W and U packed by units:  [block][gate][k][units], the bias likewise; where x is looked up,
//               b + x W of the whole table in one product
//   by steps    a = b + x W + h' U in one tile, then the gates' functions on it while it is in the first-level cache
//   by chunks   instead, where W is too large or the rows too few to read it at every step: b + x W of some steps in
//               one product, to which the steps add h' U
//
// The sums are [block][row][slot][units], so that a thread's part of a step is one run of memory; what the functions
// make of them and backward needs is saved in the same order. h' of every row is saved too: it is the left-hand side
// of the step's product and, in backward, the right-hand side of U's gradient.
//
// Caches, for an LSTM with H = D = 200, B = 20, two threads: each thread's half of U is 320 kB and of W another
// (second level); h' 17 kB and the tile it works on, 20 × 4 × 32 × 4 = 10 kB, first level. With H = 650 the halves are
// 3.4 MB each, which come from the third level at every step, 83 kB a panel, and are used for all rows of the batch.
#include <algorithm>

#include "recurrence_plan.hpp"

namespace elman::ELMAN_ISA {

namespace {

template <class C, class Kind> class Forward {
    static constexpr bool CONVERT = Kind::DEPTH > 1;
    using Stored = typename Kind::Stored;

  public:
    explicit Forward(const RecurrenceForward& task)
        : task_(task), plan_(task.shape), depth_x_(words_of<Kind>(plan_.D)), depth_h_(words_of<Kind>(plan_.H)),
          threads_(worthwhile_threads(task.shape, C::GATES)) {
        chunk_rows_ = std::max(CHUNK_FLOATS * threads_ / (C::SLOTS * plan_.padded), CHUNK_ROWS);
        const long weights = plan_.padded * C::GATES * (depth_x_ + depth_h_);
        chunks_ = !task.shape.rows && (plan_.N < STEP_ROWS * plan_.T || weights > STEP_WORDS);
        copy_x_ = CONVERT || plan_.D % ALIASED == 0;  // see stride_of
        x_row_ = copy_x_ ? stride_of(depth_x_) : depth_x_;

        const long panels = plan_.padded * C::GATES;
        w_ = parts_.add(panels * depth_x_);
        u_ = parts_.add(panels * depth_h_);
        bias_ = parts_.add(plan_.padded * C::SLOTS);
        x_ = parts_.add(copy_x_ ? plan_.U * x_row_ : 0);
        // of the table, or of a chunk: whole steps, so up to a step more
        sum_rows_ = task.shape.rows ? plan_.U : chunks_ ? std::min(chunk_rows_ + plan_.B, plan_.N) : 0;
        sums_ = parts_.add(sum_rows_ * C::SLOTS * plan_.padded);
        a_ = parts_.add(chunks_ ? 0 : threads_ * plan_.B * C::SLOTS * PANEL);
        h_ = parts_.add(task.saved ? 0 : plan_.N * plan_.h_row);
        h_exact_ = parts_.add(CONVERT && C::DIRECT ? plan_.B * plan_.state_row : 0);
        c_ = parts_.add(C::CELL ? plan_.B * plan_.state_row : 0);
    }

    void run() {
        Workspace workspace(parts_.bytes());
        base_ = workspace.as<float>();
        h_prev_ = reinterpret_cast<uint32_t*>(task_.saved ? task_.saved + plan_.h_prev : base_ + h_);
        parallel(threads_, [&](const Member& me) { member(me); });
    }

  private:
    uint32_t* words(long part) const { return reinterpret_cast<uint32_t*>(base_ + part); }
    Stored* h_prev(long row) const { return reinterpret_cast<Stored*>(h_prev_ + row * plan_.h_row); }
    float* c(long b) const { return base_ + c_ + b * plan_.state_row; }
    // h of the step before, not rounded, where it enters h directly
    float* h_exact(long row, long b) const {
        if constexpr (CONVERT) return base_ + h_exact_ + b * plan_.state_row;
        else return h_prev(row);
    }
    // Of row `row` of the table or of the chunk.
    float* sums(long row, long vector) const {
        return base_ + sums_ + plan_.slots_at(row, sum_rows_, vector, C::SLOTS);
    }

    void member(const Member& me) {
        prepare(me);
        me.wait();
        if (task_.shape.rows) inputs(me, 0, plan_.U), me.wait();
        for (long s = 0; s < plan_.T;) {
            long end = s, rows = 0;
            while (end < plan_.T && (!chunks_ || rows < chunk_rows_)) rows += plan_.rows_at(end++);
            const long first = plan_.steps[static_cast<size_t>(task_.shape.reverse ? end - 1 : s)].row;
            if (chunks_) inputs(me, first, rows), me.wait();
            for (; s < end; s++) {
                step(me, s, first);
                me.wait();
            }
        }
    }

    void prepare(const Member& me) {
        const auto [begin, end] = me.share((plan_.vectors + COLUMNS - 1) / COLUMNS * C::GATES);
        for (long item = begin; item < end; item++) {
            const long vector = item / C::GATES * COLUMNS, gate = item % C::GATES, unit = vector * LANES;
            const long columns = columns_at(vector, plan_.vectors), left = plan_.H - unit;
            const long units = left < columns * LANES ? left : columns * LANES, row = gate * plan_.H + unit;
            pack_columns<Kind>(panel(w_, depth_x_, vector, gate, columns), columns,
                               task_.weights.weight_ih + row * plan_.D, units, plan_.D);
            pack_columns<Kind>(panel(u_, depth_h_, vector, gate, columns), columns,
                               task_.weights.weight_hh + row * plan_.H, units, plan_.H);
            pack_bias(vector, gate, columns, units, row);
        }
        if (copy_x_) convert_rows<Kind>(words(x_), x_row_, task_.x, plan_.U, plan_.D, me);
        // rows that join at a step come with their first state
        long joined = 0;
        for (const Step& step : plan_.steps) {
            for (; joined < step.rows; joined++)
                if (joined % me.count == me.index) first_state(step.row + joined, joined);
        }
    }

    uint32_t* panel(long part, long depth, long vector, long gate, long columns) const {
        return words(part) + (vector * C::GATES + gate * columns) * LANES * depth;
    }

    // a = W x + b + U h_prev + c: both biases enter at once, but where the reset gate stands between them
    void pack_bias(long vector, long gate, long columns, long units, long row) {
        const float *b = task_.weights.bias_ih, *c = task_.weights.bias_hh;
        float* from_x = base_ + bias_ + (vector * C::SLOTS + C::FROM_X[gate] * columns) * LANES;
        float* from_h = base_ + bias_ + (vector * C::SLOTS + C::FROM_H[gate] * columns) * LANES;
        for (long u = 0; u < columns * LANES; u++) {
            const bool there = b && u < units;
            from_x[u] = there ? b[row + u] : 0.f;
            from_h[u] = (from_h == from_x ? from_x[u] : 0.f) + (there ? c[row + u] : 0.f);
        }
    }

    void first_state(long row, long b) {
        copy_padded(h_prev(row), task_.h_first + b * plan_.H, plan_.H);
        if constexpr (CONVERT && C::DIRECT) copy_padded(h_exact(row, b), task_.h_first + b * plan_.H, plan_.H);
        if constexpr (C::CELL) copy_padded(c(b), task_.c_first + b * plan_.H, plan_.H);
    }

    // sums = b + W x for `rows` rows of x from `first` on
    void inputs(const Member& me, long first, long rows) {
        for_blocks(me, plan_.vectors, rows, [&](long vector, long columns, long from, long to) {
            const long row = C::SLOTS * columns * LANES;
            float* a = sums(from, vector);
            for (int gate = 0; gate < C::GATES; gate++) {
                const long slot = C::FROM_X[gate] * columns * LANES;
                Products w;
                w.add(of_x(first + from, vector, gate, columns));
                panel_product<Kind>(columns, a + slot, row, {bias(vector) + slot}, to - from, w);
            }
            if constexpr (C::SLOTS > C::GATES) {  // what comes from h alone starts with its bias
                const long slot = C::FROM_H[C::GATES - 1] * columns * LANES;
                panel_product<Kind>(columns, a + slot, row, {bias(vector) + slot}, to - from, {});
            }
        });
    }

    const float* bias(long vector) const { return base_ + bias_ + vector * C::SLOTS * LANES; }
    Product of_x(long row, long vector, long gate, long columns) const {
        const uint32_t* x = copy_x_ ? words(x_) : reinterpret_cast<const uint32_t*>(task_.x);
        return {x + row * x_row_, x_row_, 1, depth_x_, panel(w_, depth_x_, vector, gate, columns)};
    }
    Product of_h(long row, long vector, long gate, long columns) const {
        return {h_prev_ + row * plan_.h_row, plan_.h_row, 1, depth_h_, panel(u_, depth_h_, vector, gate, columns)};
    }

    // a = b + W x + U h_prev + c, then the cell; first: of the chunk
    void step(const Member& me, long s, long first) {
        const Step now = plan_.steps[static_cast<size_t>(s)];
        for_blocks(me, plan_.vectors, now.rows, [&](long vector, long columns, long from, long to) {
            const long row = C::SLOTS * columns * LANES, n = now.row + from;
            // the sums of rows from … to alone: of the chunk, or the member's own
            float* a = chunks_ ? sums(n - first, vector) : base_ + a_ + me.index * plan_.B * C::SLOTS * PANEL;
            for (int slot = 0; slot < C::SLOTS; slot++) {
                const long at = slot * columns * LANES;
                const int x = gate_of(C::FROM_X, slot), h = gate_of(C::FROM_H, slot);
                From begin{a + at, row};
                Products products;
                if (task_.shape.rows) begin = {sums(0, vector) + at, row, task_.shape.rows + n};
                else if (!chunks_) {
                    begin = {bias(vector) + at};
                    if (x >= 0) products.add(of_x(n, vector, x, columns));
                }
                if (h >= 0) products.add(of_h(n, vector, h, columns));
                if (!chunks_ || h >= 0) panel_product<Kind>(columns, a + at, row, begin, to - from, products);
            }
            for (long v = 0; v < columns; v++) cells(s, from, to, vector, v, a + v * LANES);
        });
    }

    // The cell on rows from … to, vector v of the block at `vector`; a: their sums.
    void cells(long s, long from, long to, long vector, long v, const float* a) {
        const long row = plan_.steps[static_cast<size_t>(s)].row, go_on = plan_.rows_at(s + 1);
        const long next = go_on ? plan_.steps[static_cast<size_t>(s + 1)].row : 0;
        const long u = (vector + v) * LANES, slot = columns_at(vector, plan_.vectors) * LANES;
        const int lanes = static_cast<int>(std::min<long>(plan_.H - u, LANES));
        auto* to_save = reinterpret_cast<Stored*>(task_.saved);
        if (to_save) to_save += plan_.slots_at(row + from, plan_.N, vector, C::SAVED) + v * LANES;
        for (long r = from; r < to; r++, a += C::SLOTS * slot) {
            Floats c_now{}, h_before{}, saved[C::SAVED];
            if constexpr (C::CELL) c_now = load(c(r) + u);
            if constexpr (C::DIRECT) h_before = load(h_exact(row + r, r) + u);
            const Floats h = C::forward(a, slot, h_before, c_now, saved);
            const Floats h_read = CONVERT ? only_first(h, lanes) : h;  // its last pair of k may hold a unit that is added
            if (to_save) {
                for (int k = 0; k < C::SAVED; k++) store_as(to_save + k * slot, saved[k]);
                to_save += C::SAVED * slot;
            }
            if constexpr (C::CELL) store(c(r) + u, c_now);
            store_first(task_.output + (row + r) * plan_.H + u, h, lanes);
            if (r < go_on) {
                store_as(h_prev(next + r) + u, h_read);
                if constexpr (CONVERT && C::DIRECT) store(h_exact(next + r, r) + u, h);
            } else {
                store_first(task_.h_last + r * plan_.H + u, h, lanes);
                if constexpr (C::CELL) store_first(task_.c_last + r * plan_.H + u, c_now, lanes);
            }
        }
    }

    const RecurrenceForward& task_;
    const Plan<C> plan_;
    const long depth_x_, depth_h_;
    const int threads_;
    Parts parts_;
    bool copy_x_, chunks_;
    long chunk_rows_, sum_rows_, x_row_, w_, u_, bias_, x_, sums_, a_, h_, h_exact_, c_;
    float* base_ = nullptr;
    uint32_t* h_prev_ = nullptr;
};

template <class C> void forward(const RecurrenceForward& task) {
    if (task.shape.bf16) Forward<C, Bf16>(task).run();
    else Forward<C, Fp32>(task).run();
}

}  // namespace

size_t recurrence_saved_floats(const RecurrenceShape& shape) {
    switch (shape.cell) {
        case Cell::lstm: return static_cast<size_t>(Plan<Lstm>(shape).saved);
        case Cell::gru: return static_cast<size_t>(Plan<Gru>(shape).saved);
        default: return static_cast<size_t>(Plan<Rnn<false>>(shape).saved);
    }
}

void recurrence_forward(const RecurrenceForward& task) {
    switch (task.shape.cell) {
        case Cell::rnn_tanh: return forward<Rnn<false>>(task);
        case Cell::rnn_relu: return forward<Rnn<true>>(task);
        case Cell::lstm: return forward<Lstm>(task);
        case Cell::gru: return forward<Gru>(task);
    }
}

}  // namespace elman::ELMAN_ISA
