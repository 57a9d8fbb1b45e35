#include "threads.hpp"

#include <system_error>
#include <thread>
#include <vector>

#include "denormals.hpp"
#if defined(__linux__)
#include <dlfcn.h>
#include <link.h>

#include <cstring>
#endif

namespace elman {

namespace {

void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// libgomp's entry points, as GCC itself calls them.
struct OpenMP {
    void (*parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
    int (*thread)() = nullptr;
    int (*threads)() = nullptr;
    bool usable() const { return parallel && thread && threads; }
};

#if defined(__linux__)
OpenMP find_openmp() {
    OpenMP found;
    // the libgomp already in the process: torch's wheel brings its own, under its own name
    dl_iterate_phdr(
        [](dl_phdr_info* object, size_t, void* to) {
            const char* name = strrchr(object->dlpi_name, '/');
            if (!name || strncmp(name, "/libgomp", 8) != 0) return 0;
            void* library = dlopen(object->dlpi_name, RTLD_LAZY | RTLD_NOLOAD);
            if (!library) return 0;
            auto& openmp = *static_cast<OpenMP*>(to);
            openmp.parallel = reinterpret_cast<decltype(OpenMP::parallel)>(dlsym(library, "GOMP_parallel"));
            openmp.thread = reinterpret_cast<decltype(OpenMP::thread)>(dlsym(library, "omp_get_thread_num"));
            openmp.threads = reinterpret_cast<decltype(OpenMP::threads)>(dlsym(library, "omp_get_num_threads"));
            return openmp.usable() ? 1 : 0;
        },
        &found);
    return found;
}
#else
OpenMP find_openmp() { return {}; }
#endif

std::atomic<bool> own_pool{false};

const OpenMP& openmp() {
    static const OpenMP found = find_openmp();
    return found;
}

struct Region {
    Body body;
    void* context;
    Barrier barrier;

    void run(int index, int count) {
        FlushDenormals flush;
        body(context, Member{index, count, &barrier});
    }
};

}  // namespace

void Barrier::wait(int members) {
    unsigned round = round_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == members) {
        arrived_.store(0, std::memory_order_relaxed);
        round_.store(round + 1, std::memory_order_release);
        return;
    }
    for (int spins = 0; round_.load(std::memory_order_acquire) == round; spins++) {
        if (spins < 4096) pause();
        else std::this_thread::yield();
    }
}

void parallel(int threads, Body body, void* context) {
    Region region{body, context, {}};
    if (threads <= 1) return region.run(0, 1);
    if (!own_pool && openmp().usable()) {
        openmp().parallel(
            [](void* data) {
                const OpenMP& omp = openmp();
                static_cast<Region*>(data)->run(omp.thread(), omp.threads());
            },
            &region, static_cast<unsigned>(threads), 0);
        return;
    }
    // The system may refuse a thread: nobody begins before the size of the team is known.
    std::atomic<int> team{0};
    std::vector<std::thread> others;
    try {
        for (int index = 1; index < threads; index++)
            others.emplace_back([&region, &team, index] {
                team.wait(0);
                region.run(index, team.load());
            });
    } catch (const std::system_error&) {
        // as many as there are will do
    }
    team.store(static_cast<int>(others.size()) + 1);
    team.notify_all();
    region.run(0, team.load());
    for (auto& other : others) other.join();
}

const char* pool() { return !own_pool && openmp().usable() ? "torch" : "own"; }
void use_own_pool(bool own) { own_pool = own; }

}  // namespace elman
