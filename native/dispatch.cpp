// Which instruction set's kernels run here: asked of the processor once, overridable by name.
#include <atomic>
#include <cstring>

#include "kernels.hpp"

namespace elman {

namespace portable {
extern const Kernels table;
}
#if defined(ELMAN_HAS_X86)
namespace avx2 {
extern const Kernels table;
}
namespace avx512 {
extern const Kernels table;
}
namespace avx512_bf16 {
extern const Kernels table;
}
#endif

namespace {

struct Choice {
    const Kernels* tables[4];
    const char* names[5];
    int count = 0;

    Choice() {
#if defined(ELMAN_HAS_X86)
        __builtin_cpu_init();
        const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
        if (avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni"))
            add(avx512_bf16::table);
        if (avx512) add(avx512::table);
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) add(avx2::table);
#endif
        add(portable::table);
        names[count] = nullptr;
    }

  private:
    void add(const Kernels& table) {
        tables[count] = &table;
        names[count++] = table.name;
    }
};

const Choice& choice() {
    static const Choice made;
    return made;
}

std::atomic<const Kernels*> chosen{nullptr};

}  // namespace

const Kernels& kernels() {
    const Kernels* one = chosen.load(std::memory_order_relaxed);
    return one ? *one : *choice().tables[0];
}

const Kernels* find(const char* name) {
    for (int i = 0; i < choice().count; i++)
        if (strcmp(choice().names[i], name) == 0) return choice().tables[i];
    return nullptr;
}

bool use(const char* name) {
    if (strcmp(name, "best") == 0) {
        chosen = nullptr;
        return true;
    }
    const Kernels* one = find(name);
    if (one) chosen = one;
    return one != nullptr;
}

const char* const* available() { return choice().names; }

bool bf16_is_faster() {
#if defined(ELMAN_HAS_X86)
    // Zen 4 and 5 do 32 multiply-adds per instruction at the float32 rate; Intel's vector units at half of
    // it or less (its speed in bfloat16 is in AMX, which is not used here).
    return strcmp(kernels().name, "avx512_bf16") == 0 && __builtin_cpu_is("amd");
#else
    return false;
#endif
}

}  // namespace elman
