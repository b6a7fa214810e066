// What several kernels compute number by number: e^x, GELU in its tanh form as x times a sigmoid, bfloat16, sums of products,
// norms of rows.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>

#define INLINE __attribute__((always_inline)) inline  // in loops of vectors, however large a program gets

namespace {

// e^x up to two units in the last place: 2^n times a polynomial of the rest, which is at most ln(2) / 2. x is kept within
// -87 and 88 by its bits: where floats are compared, GCC makes ways of their own for what lies outside, which vectors take too.
INLINE float exponential(float x) {
    uint32_t inside;
    std::memcpy(&inside, &x, 4);
    inside = std::min(inside, 0xc2ae0000u);  // negative floats grow downwards
    inside = (uint32_t)std::min((int32_t)inside, 0x42b00000);
    float at;
    std::memcpy(&at, &inside, 4);
    const float shifted = at * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: n is in the lowest bits
    const float n = shifted - 12582912.0f;
    const float r = (at - n * 0.693145752f) - n * 1.42860677e-6f;
    const float p = 1 + r * (1 + r * (0.5f + r * (1 / 6.0f + r * (1 / 24.0f + r * (1 / 120.0f + r * (1 / 720.0f))))));
    uint32_t bits, power;
    std::memcpy(&bits, &p, 4), std::memcpy(&power, &shifted, 4);
    bits += power << 23;
    float y;
    std::memcpy(&y, &bits, 4);
    return x == x ? y : x;  // NaN stays
}

constexpr float SLOPE = 1.5957691216f, CUBIC = 0.044715f;  // of 2 sqrt(2 / pi) (x + CUBIC x^3)
constexpr int64_t FEW = 1 << 14;                           // elements that one thread does sooner than two

INLINE float sigmoid(float x) { return 1 / (1 + exponential(-SLOPE * (x + CUBIC * x * x * x))); }

struct Bf16Number {  // the upper half of a float
    uint16_t bits;
    INLINE operator float() const {
        const uint32_t wide = (uint32_t)bits << 16;
        float x;
        std::memcpy(&x, &wide, 4);
        return x;
    }
    INLINE Bf16Number& operator=(float x) {  // the nearest, of two as near the even one; NaN stays NaN
        uint32_t wide;
        std::memcpy(&wide, &x, 4);
        bits = x == x ? (wide + 0x7fff + (wide >> 16 & 1)) >> 16 : 0x7fc0;
        return *this;
    }
};

void gelu(float* x, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) x[i] *= sigmoid(x[i]);
}

struct Norm {
    const float *gain, *shift;  // shift may be null
    float eps;
};

struct Moments {
    float mean, scale;  // one over the deviation
};

template <class T> Moments normalize(const Norm& norm, const float* x, T* y, int64_t n) {
    float sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += x[i];
    const float mean = sum / n;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
    const float scale = 1 / std::sqrt(squares / n + norm.eps);
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * scale * norm.gain[i] + (norm.shift ? norm.shift[i] : 0.0f);
    return {mean, scale};
}

template <class A, class B> float dot(const A* a, const B* b, int64_t n) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

// The largest of n numbers, past those that are none. Clang begins a maximum with the least finite number, not minus infinity.
template <class T> float largest_of(const T* x, int64_t n) {
    float largest = -INFINITY;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < n; i++) largest = x[i] > largest ? (float)x[i] : largest;
    return largest == -FLT_MAX && !std::count(x, x + n, largest) ? -INFINITY : largest;
}

}  // namespace
