// The float32 multiply-adds that this instruction set does in registers: what a kernel is measured against.
//
// As many independent sums as hide the latency and still leave registers for the two factors. Each sum tends to
// a fixed point, so nothing overflows and nothing becomes a denormal. No memory is read.
#include <chrono>
#include <vector>

#include "kernels.hpp"
#include "threads.hpp"
#include "vectors.hpp"

namespace elman::ELMAN_ISA {

namespace {
using Clock = std::chrono::steady_clock;
constexpr int SUMS = REGISTERS == 32 ? 24 : 12;
}  // namespace

// GFLOP/s of `rounds` multiply-adds of every sum on each thread, a multiply-add counted as two operations.
double peak(int threads, long rounds) {
    struct alignas(64) Times {
        Clock::time_point begin, end;
        float kept;
    };
    std::vector<Times> times(static_cast<size_t>(threads > 0 ? threads : 1));
    int members = 1;
    parallel(threads, [&](const Member& me) {
        volatile float factor = 0.75f, term = 0.5f;  // unknown to the compiler, which would solve the loop
        const Floats m = broadcast(factor), a = broadcast(term);
        Floats sums[SUMS];
        for (int i = 0; i < SUMS; i++) sums[i] = a + static_cast<float>(i);
        if (me.index == 0) members = me.count;
        me.wait();
        Times& own = times[static_cast<size_t>(me.index)];
        own.begin = Clock::now();
        for (long round = 0; round < rounds; round++) {
#pragma GCC unroll 24
            for (int i = 0; i < SUMS; i++) sums[i] = sums[i] * m + a;
        }
        Floats all{};
        for (int i = 0; i < SUMS; i++) all += sums[i];
        own.kept = sum(all);  // written to memory: the loop cannot be left out
        own.end = Clock::now();
    });
    auto begin = times[0].begin, end = times[0].end;
    for (int i = 1; i < members; i++) {
        begin = times[i].begin < begin ? times[i].begin : begin;
        end = times[i].end > end ? times[i].end : end;
    }
    const double seconds = std::chrono::duration<double>(end - begin).count();
    volatile float kept = 0;
    for (const Times& each : times) kept = kept + each.kept;
    return seconds > 0 ? 2e-9 * LANES * SUMS * static_cast<double>(rounds) * members / seconds : 0;
}

}  // namespace elman::ELMAN_ISA
