// A recurrent layer backward (recurrence.hpp), one source for every instruction set and cell.
//
//   once        U and W packed by their columns, x and h' by rows: the right-hand sides of what follows
//   by steps    dh' = da U on a tile, then at once the cell's derivative on it: da of the step before
//   at the end  dx = da W      dW = daᵀ x      dU = daᵀ h'      db, dc = Σ da, while daᵀ is packed
//               where x is looked up, da of dx, dW and db is first summed over the places of each row of x
//
// da [N, slots, H] is the gradient of the sums. One barrier a step: whoever has computed
// dh' of a unit has all that its derivative needs.
//
// Caches, for an LSTM with H = D = 200, N = 700: da is 2.3 MB (in bfloat16, which is then kept alone, half of that),
// written once and read three times; 104 of its rows are 340 kB (second level) and are used for all panels of W. The
// last products take k, here N, in runs of at most RUN, all of it here: 700 × 13 × 4 = 36 kB of daᵀ a tile, and
// 700 × 2 × 16 × 4 = 90 kB of x a panel, used for up to 16 tiles. A longer run reads and writes dW and dU less often:
// 8 MB each time with H = 512.
#include <algorithm>

#include "recurrence_plan.hpp"

namespace elman::ELMAN_ISA {

namespace {

template <class C, class Kind> class Backward {
    static constexpr long DEPTH = Kind::DEPTH;
    using Stored = typename Kind::Stored;

  public:
    explicit Backward(const RecurrenceBackward& task)
        : task_(task), plan_(task.shape), vectors_x_(vectors_of(plan_.D)), depth_h_(words_of<Kind>(plan_.H)),
          of_h_{plan_.N, words_of<Kind>(plan_.N)}, of_x_{plan_.U, words_of<Kind>(plan_.U)},
          places_(task.shape.rows, plan_.N, plan_.U), threads_(worthwhile_threads(task.shape, C::GATES)) {
        da_row_ = stride_of(C::SLOTS * plan_.padded / DEPTH);
        u_ = parts_.add(plan_.padded * C::GATES * depth_h_);
        w_ = parts_.add(task.dx ? vectors_x_ * LANES * C::GATES * depth_h_ : 0);
        x_ = parts_.add(task.dweight_ih ? vectors_x_ * LANES * of_x_.depth : 0);
        h_ = parts_.add(task.dweight_hh ? plan_.padded * of_h_.depth : 0);
        auto sums = [&](long rows) { return parts_.add(rows * da_row_ + 2 * REGISTERS); };  // read in whole vectors
        of_h_.da = sums(plan_.N), of_x_.da = task.shape.rows ? sums(plan_.U) : of_h_.da;
        direct_ = parts_.add(C::DIRECT ? plan_.B * plan_.state_row : 0);
        dc_ = parts_.add(C::CELL ? plan_.B * plan_.state_row : 0);
        dh_ = parts_.add(threads_ * plan_.B * PANEL);
        left_ = parts_.add(threads_ * TILES * left_tile());
    }

    void run() {
        Workspace workspace(parts_.bytes());
        base_ = workspace.as<float>();
        parallel(threads_, [&](const Member& me) { member(me); });
    }

  private:
    // Gradients of the sums: `da` of all places, or for each row of x; as many rows, and as many words of them as k.
    struct Sums {
        long rows, depth, da = 0;
    };

    static constexpr long left_tile() { return (RUN / DEPTH + 4) * ROWS + 3 * REGISTERS; }

    uint32_t* words(long part) const { return reinterpret_cast<uint32_t*>(base_ + part); }
    const Stored* gates(long row, long vector) const {
        return reinterpret_cast<const Stored*>(task_.saved) + plan_.slots_at(row, plan_.N, vector, C::SAVED);
    }
    const Stored* h_prev(long row) const {
        return reinterpret_cast<const Stored*>(task_.saved + plan_.h_prev + row * plan_.h_row);
    }
    Stored* da(const Sums& of, long row) const { return reinterpret_cast<Stored*>(base_ + of.da + row * da_row_); }
    float* direct(long b) const { return base_ + direct_ + b * plan_.state_row; }
    float* dc(long b) const { return base_ + dc_ + b * plan_.state_row; }

    void member(const Member& me) {
        prepare(me);
        me.wait();
        const bool first = task_.dh_first || task_.dc_first;
        for (long s = plan_.T - 1; s >= (first ? -1 : 0); s--) {
            step(me, s);
            me.wait();
        }
        if (task_.shape.rows) sum_places(me), me.wait();
        if (task_.dx) inputs(me);
        if (task_.shape.rows) weights(me, of_x_, true, false), weights(me, of_h_, false, true);
        else weights(me, of_h_, true, true);
    }

    void prepare(const Member& me) {
        pack_weights(me, u_, task_.weights.weight_hh, plan_.H);
        if (task_.dx) pack_weights(me, w_, task_.weights.weight_ih, plan_.D);
        if (task_.dweight_ih) pack_states(me, x_, of_x_, task_.x, plan_.D, plan_.D);
        if (task_.dweight_hh) pack_states(me, h_, of_h_, h_prev(0), plan_.h_row * DEPTH, plan_.H);
    }

    // [G·H, n] -> [block of n][gate][k][columns]
    void pack_weights(const Member& me, long part, const float* weight, long n) {
        const long vectors = vectors_of(n);
        const auto [begin, end] = me.share((vectors + COLUMNS - 1) / COLUMNS * C::GATES);
        for (long item = begin; item < end; item++) {
            const long vector = item / C::GATES * COLUMNS, gate = item % C::GATES;
            const long columns = columns_at(vector, vectors);
            pack_rows<Kind>(panel(part, vector) + gate * depth_h_ * columns * LANES, columns,
                            weight + gate * plan_.H * n + vector * LANES, n, n - vector * LANES, plan_.H);
        }
    }
    const uint32_t* panel(long part, long vector) const { return words(part) + vector * LANES * C::GATES * depth_h_; }
    uint32_t* panel(long part, long vector) { return words(part) + vector * LANES * C::GATES * depth_h_; }

    // [rows, n] -> [block of n][k = row][columns]
    void pack_states(const Member& me, long part, const Sums& of, const auto* from, long from_row, long n) {
        for_blocks(me, vectors_of(n), of.depth, [&](long vector, long columns, long w, long end) {
            pack_rows<Kind>(words(part) + vector * LANES * of.depth + w * columns * LANES, columns,
                            from + w * DEPTH * from_row + vector * LANES, from_row, n - vector * LANES,
                            std::min(end * DEPTH, of.rows) - w * DEPTH);
        });
    }

    // Step s, between the state before it and the step after it; s = -1: the first state's gradient.
    void step(const Member& me, long s) {
        const long rows = plan_.rows_at(s), after = plan_.rows_at(s + 1);
        float* dh = base_ + dh_ + me.index * plan_.B * PANEL;
        for_blocks(me, plan_.vectors, std::max(rows, after), [&](long vector, long columns, long from, long to) {
            if (from < after) {
                // forward: a += U h_prev          and, in the GRU, h_prev enters h directly
                const long row = plan_.steps[static_cast<size_t>(s + 1)].row + from;
                const From begin{C::DIRECT ? direct(from) + vector * LANES : nullptr, plan_.state_row};
                panel_product<Kind>(columns, dh + from * PANEL, PANEL, begin, std::min(to, after) - from,
                                    products(of_h_, row, C::FROM_H, panel(u_, vector), columns));
            }
            for (long v = 0; v < columns; v++) cells(s, from, to, vector, v, dh + v * LANES);
        });
    }

    // da of the gates, from `row` on, times b
    Products products(const Sums& of, long row, const int (&slots)[C::GATES], const uint32_t* b, long columns) const {
        Products sum;
        const uint32_t* a = words(of.da) + row * da_row_;
        for (int gate = 0; gate < C::GATES; gate++, b += depth_h_ * columns * LANES)
            sum.add({a + slots[gate] * plan_.padded / DEPTH, da_row_, 1, depth_h_, b});
        return sum;
    }

    // The cell on rows from … to, vector v of the block at `vector`. from_after: dh of row 0, as it comes from the step
    // after, PANEL floats from row to row; rows that had their last step here have none.
    void cells(long s, long from, long to, long vector, long v, const float* from_after) {
        const long u = (vector + v) * LANES, slot = columns_at(vector, plan_.vectors) * LANES;
        const long now = plan_.rows_at(s), after = plan_.rows_at(s + 1);
        const int lanes = static_cast<int>(std::min<long>(plan_.H - u, LANES));
        auto some = [&](const float* at, long row) {
            return at ? load_first(at + row * plan_.H + u, lanes) : Floats{};
        };
        const long first = now ? plan_.steps[static_cast<size_t>(s)].row : 0;
        for (long r = from; r < to; r++) {
            Floats dh = r < after ? load(from_after + r * PANEL) : some(task_.dh_last, r), dc_now{};
            if constexpr (C::CELL) dc_now = r < after ? load(dc(r) + u) : some(task_.dc_last, r);
            if (r >= now) {  // row r begins at the step after
                if (task_.dh_first) store_first(task_.dh_first + r * plan_.H + u, dh, lanes);
                if (C::CELL && task_.dc_first) store_first(task_.dc_first + r * plan_.H + u, dc_now, lanes);
                continue;
            }
            const long row = first + r;
            dh += some(task_.doutput, row);  // forward: output = h, and h goes on to the step after
            Floats saved[C::SAVED], h_before{}, sums[C::SLOTS], directly{};
            for (int k = 0; k < C::SAVED; k++) saved[k] = load_stored(gates(row, vector) + v * LANES + k * slot);
            if constexpr (C::DIRECT) h_before = load_stored(h_prev(row) + u);
            C::backward(saved, h_before, dh, dc_now, sums, directly);
            for (int k = 0; k < C::SLOTS; k++)  // the last pair of k may hold a unit that is added
                store_as(da(of_h_, row) + k * plan_.padded + u, DEPTH > 1 ? only_first(sums[k], lanes) : sums[k]);
            if constexpr (C::CELL) store(dc(r) + u, dc_now);
            if constexpr (C::DIRECT) store(direct(r) + u, directly);
        }
    }

    // da of row u of x = Σ of its places                          forward: a[n] = W x[rows[n]] + …
    void sum_places(const Member& me) {
        constexpr int LINE = 64 / (LANES * static_cast<int>(sizeof(Stored)));
        const auto [begin, end] = me.share(C::SLOTS * plan_.vectors);
        for (long v = begin; v < end; v += SUMMED)
            with_rows<SUMMED>(static_cast<int>(std::min<long>(end - v, SUMMED)), [&]<int M>() {
                auto place = [&](long n) { return da(of_h_, n) + v * LANES; };
                for (long u = 0; u < plan_.U; u++) {
                    Floats sums[M]{};
                    for (const long* n = places_.begin(u); n < places_.begin(u + 1); n++) {
                        for (int m = 0; m < M; m += LINE)
                            __builtin_prefetch(place(n[PLACES_AHEAD]) + m * LANES);
                        for (int m = 0; m < M; m++) sums[m] += load_stored(place(*n) + m * LANES);
                    }
                    for (int m = 0; m < M; m++) store_as(da(of_x_, u) + (v + m) * LANES, sums[m]);
                }
            });
    }

    // dx = da W                                                   forward: a = W x + b
    void inputs(const Member& me) {
        const auto [begin, end] = me.share(plan_.U);
        for (long row = begin; row < end; row += ROW_BLOCK)
            for (long vector = 0; vector < vectors_x_; vector += COLUMNS) {
                const long columns = columns_at(vector, vectors_x_);
                panel_product<Kind>(columns, task_.dx + row * plan_.D + vector * LANES, plan_.D, {},
                                    std::min(end - row, ROW_BLOCK),
                                    products(of_x_, row, C::FROM_X, panel(w_, vector), columns),
                                    last_lanes(plan_.D, vector + columns));
            }
    }

    // Of n columns, those in the vector before `end`.
    static int last_lanes(long n, long end) { return static_cast<int>(std::min<long>(n - (end - 1) * LANES, LANES)); }

    // dW = daᵀ x, dU = daᵀ h_prev, db = dc = Σ da                 forward: a = W x + b + U h_prev + c
    void weights(const Member& me, const Sums& of, bool x, bool h) {
        if (!task_.dweight_ih && !task_.dweight_hh && !task_.dbias_ih && !task_.dbias_hh) return;
        const auto [begin, end] = me.share(plan_.H);
        const long runs = (of.rows + RUN - 1) / RUN;
        for (long run = 0; run < runs; run++) {
            const long w = of.depth * run / runs, w_end = of.depth * (run + 1) / runs;
            for (int slot = 0; slot < C::SLOTS; slot++) {
                const Asked asked{x ? gate_of(C::FROM_X, slot) : -1, h ? gate_of(C::FROM_H, slot) : -1, slot};
                if (asked.x < 0 && asked.h < 0) continue;
                for (long unit = begin; unit < end; unit += TILES * ROWS)
                    units(me, of, asked, unit, std::min(unit + TILES * ROWS, end), w, w_end);
            }
        }
    }

    struct Asked {
        int x, h, slot;  // the slot's gates in W and in U whose gradients are asked for; -1: none
    };

    // The part of words w … w_end of k, for some units of one slot.
    void units(const Member& me, const Sums& of, const Asked& asked, long begin, long end, long w, long w_end) {
        const long tiles = (end - begin + ROWS - 1) / ROWS, k = w * DEPTH, depth = std::min(w_end * DEPTH, of.rows) - k;
        uint32_t* packed = words(left_) + me.index * TILES * left_tile();
        auto first = [&](long tile) { return begin + (end - begin) * tile / tiles; };
        alignas(64) float sums[TILES * LEFT_VECTORS * LANES] = {};
        long columns[TILES] = {};
        for (long tile = 0; tile < tiles; tile++) columns[tile] = first(tile);
        pack_left<Kind>(packed, left_tile(), da(of, k) + asked.slot * plan_.padded, da_row_ * DEPTH, columns, tiles,
                        depth, sums);
        for (long tile = 0; tile < tiles; tile++)
            for (long u = first(tile); u < first(tile + 1); u++) {
                const float sum = sums[tile * LEFT_VECTORS * LANES + u - first(tile)];
                add_bias(task_.dbias_ih, asked.x, u, k > 0, sum);
                add_bias(task_.dbias_hh, asked.h, u, k > 0, sum);
            }
        auto product = [&](float* to, int gate, long part, long n) {
            if (!to || gate < 0) return;
            for (long vector = 0; vector < vectors_of(n); vector += COLUMNS) {
                const long columns = columns_at(vector, vectors_of(n));
                const uint32_t* b = words(part) + vector * LANES * of.depth + w * columns * LANES;
                for (long tile = 0; tile < tiles; tile++) {
                    float* out = to + (gate * plan_.H + first(tile)) * n + vector * LANES;
                    Products sum;
                    sum.add({packed + tile * left_tile(), 1, ROWS, w_end - w, b});
                    panel_product<Kind>(columns, out, n, {k > 0 ? out : nullptr, n}, first(tile + 1) - first(tile), sum,
                                        last_lanes(n, vector + columns));
                }
            }
        };
        product(task_.dweight_ih, asked.x, x_, plan_.D);
        product(task_.dweight_hh, asked.h, h_, plan_.H);
    }

    void add_bias(float* to, int gate, long unit, bool add, float sum) {
        if (to && gate >= 0) to[gate * plan_.H + unit] = (add ? to[gate * plan_.H + unit] : 0.f) + sum;
    }

    const RecurrenceBackward& task_;
    const Plan<C> plan_;
    const long vectors_x_, depth_h_;
    Sums of_h_, of_x_;  // of all places; of the rows of x, the same unless x is looked up
    const Places places_;
    const int threads_;
    Parts parts_;
    long da_row_, u_, w_, x_, h_, direct_, dc_, dh_, left_;
    float* base_ = nullptr;
};

template <class C> void backward(const RecurrenceBackward& task) {
    if (task.shape.bf16) Backward<C, Bf16>(task).run();
    else Backward<C, Fp32>(task).run();
}

}  // namespace

void recurrence_backward(const RecurrenceBackward& task) {
    switch (task.shape.cell) {
        case Cell::rnn_tanh: return backward<Rnn<false>>(task);
        case Cell::rnn_relu: return backward<Rnn<true>>(task);
        case Cell::lstm: return backward<Lstm>(task);
        case Cell::gru: return backward<Gru>(task);
    }
}

}  // namespace elman::ELMAN_ISA
