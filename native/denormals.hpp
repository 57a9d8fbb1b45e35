// Denormal numbers cost a hundred cycles each and carry no information here: while one of these objects
// lives, the thread reads and writes them as zero. The old mode comes back after it.
#pragma once

#include <cstdint>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace elman {

class FlushDenormals {
  public:
#if defined(__SSE2__)
    FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }  // FTZ | DAZ
    ~FlushDenormals() { _mm_setcsr(before_); }
#elif defined(__aarch64__)
    FlushDenormals() {
        asm volatile("mrs %0, fpcr" : "=r"(before_));
        asm volatile("msr fpcr, %0" ::"r"(before_ | (uint64_t{1} << 24)));  // FZ
    }
    ~FlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(before_)); }
#else
    FlushDenormals() = default;
#endif
    FlushDenormals(const FlushDenormals&) = delete;
    FlushDenormals& operator=(const FlushDenormals&) = delete;

  private:
#if defined(__aarch64__)
    uint64_t before_ = 0;
#else
    unsigned before_ = 0;
#endif
};

}  // namespace elman
