// Runs the recurrence kernels without Python, for the sanitizers: every cell, direction, kind of product and
// instruction set, sizes around the lanes, threads of its own. What is checked is that each address and each number
// is used lawfully, that a repetition gives the same bits, and that every result has been written.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "kernels.hpp"
#include "threads.hpp"

namespace {

using Array = std::vector<float>;  // exactly as long as said: one float more is an error to the address sanitizer

Array drawn(std::mt19937& random, long n) {
    std::uniform_real_distribution<float> uniform(-1, 1);
    Array a(static_cast<size_t>(n));
    for (float& x : a) x = uniform(random);
    return a;
}
Array unwritten(long n) { return Array(static_cast<size_t>(n), std::nanf("")); }

// Every result of forward and backward, one after the other.
std::vector<Array> run(const elman::Kernels& kernels, const elman::RecurrenceShape& shape, unsigned seed) {
    std::mt19937 random(seed);
    const bool lstm = shape.cell == elman::Cell::lstm, biased = seed % 3 != 0;
    const long G = lstm ? 4 : shape.cell == elman::Cell::gru ? 3 : 1, B = shape.batch, D = shape.input_size,
               H = shape.hidden_size, rows = G * H;
    long N = 0;
    for (long t = 0; t < shape.steps; t++) N += shape.batch_sizes[t];
    const long U = shape.rows ? shape.table_rows : N;
    const Array wi = drawn(random, rows * D), wh = drawn(random, rows * H), bi = drawn(random, rows),
                bh = drawn(random, rows), x = drawn(random, U * D), h = drawn(random, B * H), c = drawn(random, B * H),
                doutput = drawn(random, N * H), dh = drawn(random, B * H), dc = drawn(random, B * H);
    Array saved = unwritten(static_cast<long>(kernels.recurrence.saved_floats(shape)));
    std::vector<Array> r{unwritten(N * H), unwritten(B * H), unwritten(lstm ? B * H : 0), unwritten(U * D),
                         unwritten(B * H), unwritten(lstm ? B * H : 0), unwritten(rows * D), unwritten(rows * H),
                         unwritten(rows), unwritten(rows)};
    const elman::RecurrenceWeights weights{wi.data(), wh.data(), biased ? bi.data() : nullptr,
                                           biased ? bh.data() : nullptr};
    float* c_last = lstm ? r[2].data() : nullptr;
    const float* c_first = lstm ? c.data() : nullptr;
    kernels.recurrence.forward(
        {shape, weights, x.data(), h.data(), c_first, r[0].data(), r[1].data(), c_last, nullptr});
    const Array output = r[0];
    kernels.recurrence.forward(
        {shape, weights, x.data(), h.data(), c_first, r[0].data(), r[1].data(), c_last, saved.data()});
    if (output != r[0]) r[0].assign(r[0].size(), std::nanf(""));  // keeping must change nothing
    kernels.recurrence.backward({shape, weights, x.data(), saved.data(), seed % 5 ? doutput.data() : nullptr,
                                 dh.data(), lstm ? dc.data() : nullptr, r[3].data(), r[4].data(),
                                 lstm ? r[5].data() : nullptr, r[6].data(), r[7].data(), r[8].data(), r[9].data()});
    return r;
}

}  // namespace

int drive_recurrence();
int drive_recurrence() {
    int wrong = 0;
    const long sizes[] = {1, 3, 7, 8, 15, 16, 17, 31, 32, 33, 48, 65};
    unsigned seed = 0;
    for (const char* const* name = elman::available(); *name; name++)
        for (int round = 0; round < 48; round++, seed++) {
            std::mt19937 random(seed);
            auto among = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
            std::vector<int64_t> batch_sizes;
            for (int t = 0, rows = 1 + among(30); t < 1 + round % 6; t++) {
                batch_sizes.push_back(rows);
                if (round % 2) rows -= among(rows);
            }
            std::vector<int64_t> rows;  // in every third round x is looked up; not every row need be used
            const long table_rows = 1 + among(40);
            for (int64_t size : batch_sizes)
                for (int64_t b = 0; b < size; b++) rows.push_back(among(static_cast<int>(table_rows)));
            const elman::RecurrenceShape shape{
                static_cast<elman::Cell>(round % 4), static_cast<long>(batch_sizes.size()), batch_sizes[0],
                sizes[among(12)], sizes[among(12)], batch_sizes.data(), among(2) == 1,
                round % 3 ? nullptr : rows.data(), table_rows, 1 + among(3), among(3) == 0};
            const auto first = run(*elman::find(*name), shape, seed), second = run(*elman::find(*name), shape, seed);
            for (size_t k = 0; k < first.size(); k++) {
                bool bad = first[k].size() && std::memcmp(first[k].data(), second[k].data(), first[k].size() * 4) != 0;
                for (float value : first[k]) bad = bad || !std::isfinite(value);
                if (bad) std::printf("recurrence %s: result %zu of case %u\n", *name, k, seed);
                wrong += bad;
            }
        }
    return wrong;
}
