// Fused output layer (output.hpp), one source for every instruction set.
//
// The vocabulary is divided among the threads; the rows go in blocks of R. For one block a thread keeps
// E[v][r] = exp(l[v][r] - shift[r]) for its own words only, and makes every product from it while it is hot:
//
//   pass 1, by chunks of CHUNK words   l = W hᵀ           W is used where it lies, hᵀ is packed
//                                      E, S[r] = Σ_v E    on the chunk, in the first-level cache
//                                      dh += Eᵀ W         the chunk of W has just been read
//   barrier                            log Z[r] = top + log z, z = Σ_threads S exp(shift - top)
//   pass 2, the same chunks            dW += E (f h)      f[r] = gradient[r] exp((shift[r] - top) - log z)
//
// so P = E exp(shift - log Z) is never formed: the factor goes onto the R × H rows of h instead of onto the
// V × R logits. `shift` follows the largest logit (softmax.hpp); a chunk remembers its own, so earlier ones stay usable.
//
// Caches, for H = 200, V = 10,000, two threads, N = 700 in two blocks of R = 352, float32. In the second level: hᵀ and
// dh, 282 kB each, a chunk of E, 104 × 352 × 4 = 146 kB, and of W, 83 kB. In the first: 13 words of W, 10 kB, beside one
// panel of hᵀ, 26 kB. From further away once per block: W and dW, 4 MB each (dW comes and goes), E, 7 MB, written and
// read; against 2.1 GFLOP of products. With H = 650 hᵀ and dh, 915 kB each, no longer fit the second level of many
// processors, yet fewer blocks are faster still: W and dW are 26 MB each (NOTES.md). Of what comes from far away the
// next chunk is asked for while the products of this one run.
#include <algorithm>
#include <cmath>

#include "output_layout.hpp"
#include "pack.hpp"
#include "softmax.hpp"
#include "threads.hpp"
#include "tile.hpp"
#include "workspace.hpp"

namespace elman::ELMAN_ISA {

namespace {

template <class Kind> class Worker {
    static constexpr int DEPTH = Kind::DEPTH;
    static constexpr long CHUNK = elman::ELMAN_ISA::CHUNK<Kind>;

  public:
    Worker(const OutputTask& task, const OutputLayout<Kind>& at, uint32_t* scratch, const Member& me)
        : task_(task), at_(at), all_(scratch), mine_(scratch + me.index * at.total), me_(me),
          share_(me.share(task.vocabulary_size, GRAIN)), H(task.hidden_size) {}

    void run() {
        for (long row = 0; row < task_.rows; row += at_.R) {
            row_ = row, rows_ = std::min(task_.rows - row, at_.R), R = round_up(rows_, PANEL);
            first_pass();
            me_.wait();
            finish_rows();
            if (task_.gradient && (task_.dweight || task_.dbias)) second_pass();
            me_.wait();  // nobody overwrites what another still reads
        }
    }

  private:
    // The chunk of W as `a` and as `b` of a product. In bfloat16 it is made anew for each block of rows: that is
    // quicker than keeping all of W so and reading it from memory.
    void weights_of(long word, long words) {
        weight_ = weight_b_ = reinterpret_cast<const uint32_t*>(task_.weight + word * H);
        if constexpr (DEPTH > 1) {
            uint32_t *along = mine_ + at_.along, *across = mine_ + at_.across;
            pack_bf16(along, task_.gradient && task_.dhidden ? across : nullptr, task_.weight + word * H, words, H);
            weight_ = along, weight_b_ = across;
        }
    }

    void first_pass() {
        pack_transposed<Kind>(mine_ + at_.hidden, task_.hidden + row_ * H, rows_, H, R);
        float *shift = floats(at_.shift), *sums = floats(at_.sums), *dh = floats(at_.dh);
        for (long r = 0; r < R; r++) shift[r] = LOWEST, sums[r] = 0.f;
        if (task_.dhidden) memset(dh, 0, static_cast<size_t>(R * at_.padded_h) * sizeof *dh);
        for (long word = share_.begin, chunk = 0; word < share_.end; word += CHUNK, chunk++) {
            const long words = share_.end - word < CHUNK ? share_.end - word : CHUNK;
            const long kept = task_.gradient ? chunk : 0;
            uint32_t* exps = mine_ + at_.exps + kept * CHUNK * (R / DEPTH);
            float* raw = DEPTH == 1 ? reinterpret_cast<float*>(exps) : floats(at_.raw);
            weights_of(word, words);
            logits(raw, word, words);
            find_targets(raw, word, words);
            move_shift(floats(at_.shifts) + kept * R);
            exponentiate(raw, exps, words);
            if (!task_.gradient || !task_.dhidden) continue;
            const uint32_t* e = DEPTH == 1 ? exps : mine_ + at_.by_pairs;
            const uint32_t* w = weight_b_;
            Ahead next(tiles(rows_));
            next.add(task_.weight + (word + CHUNK) * H, after(word) * H);
            for_panels(H, [&]<int C, bool PARTIAL>(long column, int last) {  // dh += Eᵀ W
                product<Kind, C, PARTIAL>(dh + column, at_.padded_h, rows_, true, (words + DEPTH - 1) / DEPTH, e, 1,
                                          R, w + column, H, last, &next);
            });
        }
    }

    // raw[v][r] = W[v] · h[r] + b[v]; largest_[r] = max over the chunk
    void logits(float* raw, long word, long words) {
        for (long r = 0; r < R; r += LANES) store(largest_ + r, broadcast(-__builtin_inff()));
        const long depth = at_.depth_h, rows = R;
        const uint32_t *w = weight_, *packed = mine_ + at_.hidden;
        alignas(64) float bias[CHUNK] = {};
        if (task_.bias) memcpy(bias, task_.bias + word, static_cast<size_t>(words) * sizeof *bias);
        float* largest = largest_;
        for (long v = 0; v < words; v += ROWS) {
            with_rows<ROWS>(static_cast<int>(words - v < ROWS ? words - v : ROWS), [=, &bias]<int M>() {
                for (long left = 0; left < rows; left += PANEL) {
                    Tile<M, COLUMNS> tile{};
                    multiply<Kind, M, COLUMNS>(tile, depth, w + v * depth, depth, 1, packed + left * depth, PANEL);
                    float* out = raw + v * rows + left;
#pragma GCC unroll 4
                    for (int c = 0; c < COLUMNS; c++) {
                        Floats most = load(largest + left + c * LANES);
#pragma GCC unroll 16
                        for (int m = 0; m < M; m++) {
                            Floats l = tile.at[m][c] + bias[v + m];
                            most = max(most, l);
                            store(out + m * rows + c * LANES, l);
                        }
                        store(largest + left + c * LANES, most);
                    }
                }
            });
        }
    }

    // l of the targets in this chunk, for whoever finishes their rows
    void find_targets(const float* raw, long word, long words) {
        auto* found = reinterpret_cast<float*>(all_ + at_.targets);
        for (long r = 0; r < rows_; r++) {
            const long v = task_.targets[row_ + r] - word;
            if (v >= 0 && v < words) found[r] = raw[v * R + r];
        }
    }

    // The shift follows the largest logit when that has risen by more than SLACK; what was summed relative
    // to the old one is brought to the new.
    void move_shift(float* of_chunk) {
        float *shift = floats(at_.shift), *sums = floats(at_.sums), *dh = floats(at_.dh);
        for (long r = 0; r < R; r++) {
            if (largest_[r] > shift[r] + SLACK) {
                const float factor = std::exp(shift[r] - largest_[r]);
                shift[r] = largest_[r];
                sums[r] *= factor;
                if (task_.dhidden)
                    for (long k = 0; k < at_.padded_h; k++) dh[r * at_.padded_h + k] *= factor;
            }
            of_chunk[r] = shift[r];
        }
    }

    // E = exp(raw - shift), S += Σ_v E; raw - shift <= SLACK
    void exponentiate(const float* raw, uint32_t* exps, long words) {
        for (long r = 0; r < R; r += LANES) {
            const Floats shift = load(floats(at_.shift) + r);
            Floats total = load(floats(at_.sums) + r);
            if constexpr (DEPTH == 1) {
                for (long v = 0; v < words; v++) {
                    Floats e = exp_small(load(raw + v * R + r) - shift);
                    store(reinterpret_cast<float*>(exps) + v * R + r, e);
                    total += e;
                }
            } else {
                auto* halves = reinterpret_cast<uint16_t*>(exps);
                for (long v = 0; v < words; v += 2) {
                    Floats e = exp_small(load(raw + v * R + r) - shift);
                    Floats next = v + 1 < words ? exp_small(load(raw + (v + 1) * R + r) - shift) : Floats{};
                    store_bf16(halves + v * R + r, e);
                    store_bf16(halves + (v + 1) * R + r, next);  // CHUNK is even: there is room
                    Words pair = bf16_pair(e, next);
                    memcpy(mine_ + at_.by_pairs + v / 2 * R + r, &pair, sizeof pair);
                    total += e + next;
                }
            }
            store(floats(at_.sums) + r, total);
        }
    }

    // log Z and f, for all rows; the results of this thread's share of the rows
    void finish_rows() {
        float* factor = floats(at_.factor);
        for (long r = 0; r < R; r++) factor[r] = 0.f;
        for (long r = 0; r < rows_; r++) {
            float top = -__builtin_inff();
            for (int t = 0; t < me_.count; t++) top = std::max(top, theirs(t, at_.shift)[r]);
            double z = 0;
            for (int t = 0; t < me_.count; t++)
                z += static_cast<double>(theirs(t, at_.sums)[r]) * std::exp(theirs(t, at_.shift)[r] - top);
            top_[r] = top, log_z_[r] = static_cast<float>(std::log(z));
            if (task_.gradient) factor[r] = task_.gradient[row_ + r] * relative(me_.index, r);
        }
        const auto [begin, end] = me_.share(rows_);
        for (long r = begin; r < end; r++) {
            const long target = task_.targets[row_ + r];
            const float nats = log_z_[r] - (theirs(0, at_.targets)[r] - top_[r]);
            if (task_.nats) task_.nats[row_ + r] = nats < 0.f ? 0.f : nats;  // rounding; NaN stays NaN
            if (!task_.gradient || !task_.dhidden) continue;
            const float g = task_.gradient[row_ + r], finite = g - g;  // 0; NaN where g (P - 1) is infinity less infinity
            const float* w = task_.weight + target * H;
            float* out = task_.dhidden + (row_ + r) * H;
            for (long k = 0; k < H; k++) out[k] = finite - g * w[k];  // dl = g (P - [v = target])
            for (int t = 0; t < me_.count; t++) {
                const float f = g * relative(t, r);
                const float* dh = theirs(t, at_.dh) + r * at_.padded_h;
                for (long k = 0; k < H; k++) out[k] += f * dh[k];
            }
        }
    }

    // dW += E (f h), db += Σ_r E f; then what the targets take away, in the order of the rows
    void second_pass() {
        const float* hidden = task_.hidden + row_ * H;
        const bool add = row_ > 0;
        const long depth = R / DEPTH;
        const float* packed_for = nullptr;  // the shift that `scaled` is made for
        alignas(64) float f[BLOCK_ROWS];
        for (long word = share_.begin, chunk = 0; word < share_.end; word += CHUNK, chunk++) {
            const long words = share_.end - word < CHUNK ? share_.end - word : CHUNK;
            const float* shift = floats(at_.shifts) + chunk * R;
            if (!packed_for || memcmp(packed_for, shift, static_cast<size_t>(R) * sizeof *shift) != 0) {
                packed_for = shift;
                for (long r = 0; r < R; r++)  // exp(shift - now) of an older shift is at most 1
                    f[r] = floats(at_.factor)[r] *
                           (shift[r] == floats(at_.shift)[r] ? 1.f : std::exp(shift[r] - floats(at_.shift)[r]));
                if (task_.dweight) pack_scaled<Kind>(mine_ + at_.scaled, hidden, f, rows_, H, R);
            }
            const uint32_t* e = mine_ + at_.exps + chunk * CHUNK * depth;
            Ahead next(tiles(words));
            next.add(e + CHUNK * depth, after(word) * depth);
            if (task_.dweight) {
                next.add(task_.dweight + (word + CHUNK) * H, after(word) * H);
                for_panels(H, [&]<int C, bool PARTIAL>(long column, int last) {
                    product<Kind, C, PARTIAL>(task_.dweight + word * H + column, H, words, add, depth, e, depth, 1,
                                              mine_ + at_.scaled + column * depth, PANEL, last, &next);
                });
            }
            for (long v = 0; task_.dbias && v < words; v++) {
                Floats total{};
                for (long r = 0; r < R; r += LANES) {
                    if constexpr (DEPTH == 1)
                        total += load(reinterpret_cast<const float*>(e) + v * R + r) * load(f + r);
                    else total += load_bf16(reinterpret_cast<const uint16_t*>(e) + v * R + r) * load(f + r);
                }
                task_.dbias[word + v] = (add ? task_.dbias[word + v] : 0.f) + sum(total);
            }
        }
        for (long r = 0; r < rows_; r++) {
            const long target = task_.targets[row_ + r];
            if (target < share_.begin || target >= share_.end) continue;
            const float g = task_.gradient[row_ + r];
            if (task_.dbias) task_.dbias[target] -= g;
            for (long k = 0; task_.dweight && k < H; k++) task_.dweight[target * H + k] -= g * hidden[r * H + k];
        }
    }

    // Words of the next chunk; 0 where the share is so small that it stays in the cache.
    long after(long word) const { return few_ ? 0 : std::min(share_.end - word - CHUNK, CHUNK); }
    long tiles(long rows) const { return (rows + ROWS - 1) / ROWS * std::max((H + PANEL - 1) / PANEL, 1L); }
    float* floats(long at) const { return reinterpret_cast<float*>(mine_ + at); }
    const float* theirs(int thread, long at) const {
        return reinterpret_cast<const float*>(all_ + thread * at_.total + at);
    }
    // thread t's E is P times this
    float relative(int t, long r) const { return std::exp(theirs(t, at_.shift)[r] - top_[r] - log_z_[r]); }

    const OutputTask& task_;
    const OutputLayout<Kind>& at_;
    uint32_t *all_, *mine_;
    const Member& me_;
    const Member::Share share_;
    const long H;
    const bool few_ = share_.end - share_.begin <= FEW_CHUNKS * CHUNK;
    long R = 0;  // rows of the block, rounded up: the padding has gradient 0
    const uint32_t *weight_ = nullptr, *weight_b_ = nullptr;  // the chunk: `weights_of`
    long row_ = 0, rows_ = 0;
    alignas(64) float largest_[BLOCK_ROWS];
    float top_[BLOCK_ROWS], log_z_[BLOCK_ROWS];  // log Z is their sum
};

template <class Kind> void run(const OutputTask& task) {
    const long R = block_rows(task);
    const long grains = (task.vocabulary_size + GRAIN - 1) / GRAIN;
    const int threads = static_cast<int>(std::min<long>(std::max(task.threads, 1), grains));
    auto layout = [&](int count) {  // the largest share of a team of `count`
        return OutputLayout<Kind>(task, R, std::min((grains + count - 1) / count * GRAIN, task.vocabulary_size));
    };
    long words = 0;  // the team may turn out smaller than asked for, and its shares larger
    for (int count = 1; count <= threads; count++) words = std::max(words, count * layout(count).total);
    Workspace scratch(static_cast<size_t>(words) * 4);
    parallel(threads, [&](const Member& me) {
        const OutputLayout<Kind> at = layout(me.count);
        Worker<Kind>(task, at, scratch.as<uint32_t>(), me).run();
    });
}

}  // namespace

void output_nats(const OutputTask& task) {
    if (task.rows < 1) return;  // nothing is written
    task.bf16 ? run<Bf16>(task) : run<Fp32>(task);
}

}  // namespace elman::ELMAN_ISA
