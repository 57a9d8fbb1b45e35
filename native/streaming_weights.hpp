// Weights as a step reads them, and the one product: rows of activations times a packed matrix.
//
// A panel is C vectors of LANES columns (C·LANES rows of the stored matrix); within it depth is outermost, so
// that a panel is one run of memory:   [panel][word][C][LANES]
// A word is 4 bytes of a row: one float32, two bfloat16 or four int8 of consecutive k; missing ones are zero.
//
// Activations stay float32 for float32 weights, and for bfloat16 ones where few rows are read: reading the weights is what
// that costs. Many rows at once are rounded to bfloat16, where the processor gains by it. For int8 each row of them is
// quantized on its own, x ≈ s (u - 128), u in 1 … 255, s = max |x| / 127, and Σ q u is exact in 32 bits, so that every
// instruction set gives the same sums:  Σ w x = scale_w scale_x (Σ q u - 128 Σ q).
#pragma once

#include "streaming.hpp"
#include "tile.hpp"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace elman::ELMAN_ISA {

constexpr int VECTOR = 4 * LANES;                     // bytes
// Read where they lie, [row][k]: sums along k, LANES rows at once, then across the lanes.
struct StreamInPlace {
    static constexpr int DEPTH = 1, STEP = 4;
    static constexpr bool QUANTIZED = false, IN_PLACE = true;
};

struct StreamFloat32 {
    using Sum = Floats;
    using Right = Floats;
    static constexpr int DEPTH = 1, STEP = 4;  // k and bytes of activations per word
    static constexpr bool QUANTIZED = false, IN_PLACE = false;
    ELMAN_INLINE Right prepare(Words w) { return load_as<Floats>(&w); }
    ELMAN_INLINE Sum multiply_add(Sum sum, const char* a, Right b) {
        float x;
        memcpy(&x, a, 4);
        return sum + broadcast(x) * b;
    }
};

// Activations are not rounded: a step costs the reading of its weights, and two multiply-adds hide in that.
struct StreamBfloat16 {
    using Sum = Floats;
    struct Right {
        Floats low, high;
    };
    static constexpr int DEPTH = 2, STEP = 8;
    static constexpr bool QUANTIZED = false, IN_PLACE = false;
    ELMAN_INLINE Right prepare(Words w) {
        Words low = w << 16, high = w & 0xffff0000u;
        return {load_as<Floats>(&low), load_as<Floats>(&high)};
    }
    ELMAN_INLINE Sum multiply_add(Sum sum, const char* a, const Right& b) {
        float x[2];
        memcpy(x, a, 8);
        return sum + broadcast(x[0]) * b.low + broadcast(x[1]) * b.high;
    }
};

struct StreamInt8 {
    using Sum = Ints;
    static constexpr int DEPTH = 4, STEP = 4;
    static constexpr bool QUANTIZED = true, IN_PLACE = false;
#if defined(__AVX512VNNI__)
    using Right = Words;
    ELMAN_INLINE Right prepare(Words w) { return w; }
    ELMAN_INLINE Sum multiply_add(Sum sum, const char* a, Right b) {
        uint32_t x;
        memcpy(&x, a, 4);
        return Ints(_mm512_dpbusd_epi32(__m512i(sum), __m512i(broadcast_word(x)), __m512i(b)));
    }
#elif defined(__SSE2__)
    // u · q of bytes would saturate in 16 bits (255 · 127 · 2), so both are widened first: k and k + 2 in one
    // vector of 16-bit numbers, k + 1 and k + 3 in the other.
    typedef int16_t Shorts __attribute__((vector_size(VECTOR)));
    struct Right {
        Shorts even, odd;
    };
    ELMAN_INLINE Right prepare(Words w) {
        Shorts pairs = load_as<Shorts>(&w);
        return {(pairs << 8) >> 8, pairs >> 8};
    }
    ELMAN_INLINE Sum multiply_add(Sum sum, const char* a, const Right& b) {
        uint32_t x;
        memcpy(&x, a, 4);
        const Words even = broadcast_word(x & 0x00ff00ffu), odd = broadcast_word(x >> 8 & 0x00ff00ffu);
        return sum + pairs(even, b.even) + pairs(odd, b.odd);
    }
    ELMAN_INLINE Ints pairs(Words a, Shorts b) {
#if defined(__AVX512BW__)
        return Ints(_mm512_madd_epi16(__m512i(a), __m512i(b)));
#elif defined(__AVX2__)
        return Ints(_mm256_madd_epi16(__m256i(a), __m256i(b)));
#else
        return Ints(_mm_madd_epi16(__m128i(a), __m128i(b)));
#endif
    }
#else
    using Right = Ints;
    ELMAN_INLINE Right prepare(Words w) { return load_as<Ints>(&w); }
    ELMAN_INLINE Sum multiply_add(Sum sum, const char* a, Right b) {
        const auto* x = reinterpret_cast<const uint8_t*>(a);
        sum += ((b << 24) >> 24) * x[0] + ((b << 16) >> 24) * x[1];
        return sum + ((b << 8) >> 24) * x[2] + (b >> 24) * x[3];
    }
#endif
};

// x [n] -> u [padded], s: see above. Values beyond n count as zero. NaN or infinity in x make s NaN.
inline float quantize(uint8_t* to, const float* x, long n, long padded) {
    Floats largest{}, difference{};
    for (long k = 0; k < n; k += LANES) {
        Floats v = load_first(x + k, n - k < LANES ? static_cast<int>(n - k) : LANES);
        largest = max(largest, max(v, -v));
        difference += v - v;  // 0, or NaN
    }
    float most = 0;
    for (int lane = 0; lane < LANES; lane++) most = largest[lane] > most ? largest[lane] : most;
    const float inverse = most > 0 ? 127.f / most : 0.f;
    typedef uint8_t Bytes __attribute__((vector_size(LANES)));
    for (long k = 0; k < padded; k += LANES) {
        const long left = n - k;
        const int lanes = left >= LANES ? LANES : left > 0 ? static_cast<int>(left) : 0;
        Floats v = load_first(x + (lanes ? k : 0), lanes);
        v *= inverse;
#if defined(__SSE2__)
        asm("" : "+x"(v));  // rounded here, on every instruction set: no multiply-add with what follows
#endif
        Floats shifted = v + 12582912.f;  // 1.5 · 2^23: the nearest integer, ties to even, in the low bits
        Bytes bytes = __builtin_convertvector((load_as<Ints>(&shifted) + 128) & 255, Bytes);
        memcpy(to + k, &bytes, padded - k < LANES ? padded - k : LANES);
    }
    return most / 127.f + sum(difference);
}

}  // namespace elman::ELMAN_ISA
