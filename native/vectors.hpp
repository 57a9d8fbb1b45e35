// Vectors of one instruction set: the only file that knows lane counts, masks and intrinsics.
//
// Every kernel source is compiled once per instruction set (CMakeLists.txt) inside its own namespace,
// elman::portable, elman::avx2, elman::avx512: the same text, other lanes. What is not written with
// GCC's vector extension (which also gives NEON) is one `#if` below.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#ifndef ELMAN_ISA
#define ELMAN_ISA portable
#endif

#define ELMAN_INLINE static inline __attribute__((always_inline))

namespace elman::ELMAN_ISA {

#if defined(__AVX512F__)
constexpr int LANES = 16, REGISTERS = 32;
#elif defined(__AVX2__)
constexpr int LANES = 8, REGISTERS = 16;
#elif defined(__aarch64__)
constexpr int LANES = 4, REGISTERS = 32;
#else
constexpr int LANES = 4, REGISTERS = 16;
#endif

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));

constexpr long round_up(long n, long to) { return (n + to - 1) / to * to; }

ELMAN_INLINE Floats broadcast(float x) { return x - Floats{}; }
ELMAN_INLINE Ints broadcast_int(int32_t x) { return x - Ints{}; }
ELMAN_INLINE Words broadcast_word(uint32_t x) { return x - Words{}; }

template <class V> ELMAN_INLINE V load_as(const void* from) {
    V v;
    memcpy(&v, from, sizeof v);
    return v;
}
ELMAN_INLINE Floats load(const float* from) { return load_as<Floats>(from); }
ELMAN_INLINE void store(float* to, Floats v) { memcpy(to, &v, sizeof v); }

// The first n of LANES (0 <= n <= LANES); the other lanes are 0 and are neither read nor written.
#if defined(__AVX512F__)
// All of them without a mask: on Zen 5 a masked load waits for the stores before it.
ELMAN_INLINE __mmask16 first(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
ELMAN_INLINE Floats load_first(const float* from, int n) {
    return n == LANES ? load(from) : Floats(_mm512_maskz_loadu_ps(first(n), from));
}
ELMAN_INLINE void store_first(float* to, Floats v, int n) {
    if (n == LANES) store(to, v);
    else _mm512_mask_storeu_ps(to, first(n), __m512(v));
}
#else
ELMAN_INLINE Floats load_first(const float* from, int n) {
    Floats v{};
    for (int lane = 0; lane < n; lane++) v[lane] = from[lane];
    return v;
}
ELMAN_INLINE void store_first(float* to, Floats v, int n) {
    for (int lane = 0; lane < n; lane++) to[lane] = v[lane];
}
#endif

// v in the first n lanes, 0 in the others
ELMAN_INLINE Floats only_first(Floats v, int n) {
    if (n == LANES) return v;
    for (int lane = n; lane < LANES; lane++) v[lane] = 0;
    return v;
}

ELMAN_INLINE Floats max(Floats a, Floats b) { return a > b ? a : b; }
ELMAN_INLINE Floats min(Floats a, Floats b) { return a < b ? a : b; }

// The larger of x and low, the smaller of x and high; NaN stays NaN: of a pair that has none, x86 takes the second.
#if defined(__AVX512F__)
ELMAN_INLINE Floats at_least(Floats x, float low) {
    return Floats(_mm512_maskz_max_ps(0xffff, __m512(broadcast(low)), __m512(x)));
}
ELMAN_INLINE Floats at_most(Floats x, float high) {
    return Floats(_mm512_maskz_min_ps(0xffff, __m512(broadcast(high)), __m512(x)));
}
#elif defined(__AVX2__)
ELMAN_INLINE Floats at_least(Floats x, float low) {
    return Floats(_mm256_max_ps(__m256(broadcast(low)), __m256(x)));
}
ELMAN_INLINE Floats at_most(Floats x, float high) {
    return Floats(_mm256_min_ps(__m256(broadcast(high)), __m256(x)));
}
#else
ELMAN_INLINE Floats at_least(Floats x, float low) { return x < low ? broadcast(low) : x; }
ELMAN_INLINE Floats at_most(Floats x, float high) { return x > high ? broadcast(high) : x; }
#endif

ELMAN_INLINE float sum(Floats v) {
    float total = 0;
    for (int lane = 0; lane < LANES; lane++) total += v[lane];
    return total;
}

// exp(x) = 2^k (1 + p): x = k ln 2 + r with |r| <= ln 2 / 2, ln 2 subtracted in two parts (Cody & Waite 1980);
// p = exp(r) - 1 by a polynomial of degree 6 that begins r + r²/2, exact near 0, and is nowhere more than 3.2e-9 away
// (minimax; the Taylor series would need degree 7). |x| <= 88.
struct Exponential {
    Floats power, p;
};
ELMAN_INLINE Exponential exponential(Floats x) {
    const Floats rounding = broadcast(12582912.f);  // 1.5 * 2^23: adding it leaves the nearest integer in the last bits
    Floats shifted = x * 1.44269504f + rounding, k = shifted - rounding;
    Floats r = x - k * 0.693145752f;
    r = r - k * 1.42860677e-6f;
    Floats y = broadcast(1.394202009e-3f);
    y = y * r + 8.368759247e-3f;
    y = y * r + 4.166638687e-2f;
    y = y * r + .1666652034f;
    y = y * r + .5f;
    y = y * r + 1.f;
    Words power = (load_as<Words>(&shifted) << 23) + (127u << 23);
    return {load_as<Floats>(&power), y * r};
}

// Relative error below 2 ulp on [-87.3, 88.3]; below that 0 (no denormals), above it +inf; NaN stays NaN.
ELMAN_INLINE Floats exp(Floats x) {
    Exponential e = exponential(at_most(at_least(x, -87.3f), 88.3f));
    Floats y = e.power + e.power * e.p;
    y = x < -87.3f ? Floats{} : y;
    return x > 88.3f ? broadcast(__builtin_inff()) : x != x ? x : y;
}

// The same where x <= 80 is known.
ELMAN_INLINE Floats exp_small(Floats x) {
    Exponential e = exponential(at_least(x, -87.3f));
    return x < -87.3f ? Floats{} : e.power + e.power * e.p;
}

// bfloat16: the upper half of a float32, rounded to nearest, ties to even; NaN stays NaN.
ELMAN_INLINE Words bf16_bits(Floats x) {  // in the lower half of each word
#if defined(__AVX512BF16__)
    return Words(_mm512_maskz_cvtepu16_epi32(0xffff, __m256i(_mm512_cvtneps_pbh(__m512(x)))));
#else
    Words bits = load_as<Words>(&x);
    Words rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return x != x ? (bits >> 16) | 0x40u : rounded;
#endif
}
// Two consecutive k in one word, `low` the first of them.
ELMAN_INLINE Words bf16_pair(Floats low, Floats high) { return bf16_bits(low) | bf16_bits(high) << 16; }

ELMAN_INLINE void store_bf16(uint16_t* to, Floats v) {
#if defined(__AVX512BF16__)
    __m256bh halves = _mm512_cvtneps_pbh(__m512(v));
#else
    typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
    Halves halves = __builtin_convertvector(bf16_bits(v), Halves);
#endif
    memcpy(to, &halves, sizeof halves);
}
// 2 · LANES consecutive k, two to a word
ELMAN_INLINE Words bf16_words(Floats first, Floats second) {
#if defined(__AVX512BF16__)
    return Words(_mm512_cvtne2ps_pbh(__m512(second), __m512(first)));
#else
    alignas(64) uint16_t halves[2 * LANES];
    store_bf16(halves, first);
    store_bf16(halves + LANES, second);
    return load_as<Words>(halves);
#endif
}
ELMAN_INLINE Floats load_bf16(const uint16_t* from) {
#if defined(__AVX512F__)  // what GCC makes of the conversion takes twice the instructions
    Words wide = Words(_mm512_maskz_cvtepu16_epi32(0xffff, load_as<__m256i>(from))) << 16;
#else
    typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
    Words wide = __builtin_convertvector(load_as<Halves>(from), Words) << 16;
#endif
    return load_as<Floats>(&wide);
}
ELMAN_INLINE Floats load_stored(const float* from) { return load(from); }
ELMAN_INLINE Floats load_stored(const uint16_t* from) { return load_bf16(from); }
ELMAN_INLINE void store_as(float* to, Floats v) { store(to, v); }
ELMAN_INLINE void store_as(uint16_t* to, Floats v) { store_bf16(to, v); }

// rows[i][j] <-> rows[j][i]. Interleaving row i with row i + LANES/2, log2(LANES) times, is the transpose.
ELMAN_INLINE void transpose(Words (&rows)[LANES]) {
    Words low{}, high{};
    for (int lane = 0; lane < LANES; lane++) {
        low[lane] = static_cast<uint32_t>(lane / 2 + lane % 2 * LANES);
        high[lane] = low[lane] + LANES / 2;
    }
#pragma GCC unroll 4
    for (int width = 1; width < LANES; width *= 2) {
        Words next[LANES];
#pragma GCC unroll 16
        for (int i = 0; i < LANES / 2; i++) {
            next[2 * i] = __builtin_shuffle(rows[i], rows[i + LANES / 2], low);
            next[2 * i + 1] = __builtin_shuffle(rows[i], rows[i + LANES / 2], high);
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) rows[i] = next[i];
    }
}

}  // namespace elman::ELMAN_ISA
