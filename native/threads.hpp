// A parallel region, and the barrier inside it.
//
// Where torch brings GNU OpenMP, its pool is borrowed: a second pool would fight the first, whose idle threads
// spin for milliseconds after each region. Elsewhere threads are started for the region and joined.
#pragma once

#include <atomic>

namespace elman {

// Reusable; every member of the team must arrive. Spins, then yields: the members may outnumber the cores.
class Barrier {
  public:
    void wait(int members);

  private:
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<unsigned> round_{0};
};

// What a member of the team knows. `count` may be smaller than asked for, never larger.
struct Member {
    int index, count;
    Barrier* barrier;

    void wait() const { barrier->wait(count); }

    // The half-open share [begin, end) of `total` items in steps of `grain`; shares differ by one grain at most.
    struct Share {
        long begin, end;
    };
    Share share(long total, long grain = 1) const {
        long grains = (total + grain - 1) / grain;
        long begin = grains * index / count * grain, end = grains * (index + 1) / count * grain;
        return {begin < total ? begin : total, end < total ? end : total};
    }
};

using Body = void (*)(void* context, const Member&);

// Runs body on up to `threads` threads, denormals flushed to zero in each, and returns when all have ended.
void parallel(int threads, Body body, void* context);

template <class F> void parallel(int threads, const F& f) {
    parallel(threads, [](void* context, const Member& member) { (*static_cast<const F*>(context))(member); },
             const_cast<void*>(static_cast<const void*>(&f)));
}

// "torch" (its OpenMP pool is borrowed) or "own".
const char* pool();
void use_own_pool(bool own);  // for tests under sanitizers and on machines with another runtime

}  // namespace elman
