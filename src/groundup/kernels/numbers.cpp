// What several kernels compute number by number: e^x, GELU in its tanh form as x times a sigmoid, bfloat16, norms of rows, sums
// of products, rotation.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define INLINE __attribute__((always_inline)) inline  // in loops of vectors, however large a program gets

namespace {

template <class To, class From> INLINE To same_bits(From x) {
    static_assert(sizeof(To) == sizeof x);
    To y;
    std::memcpy(&y, &x, sizeof y);
    return y;
}

// x, or LOW (below 0) or HIGH where it lies outside. By their bits, and as values: where floats are compared, or integers by
// std::min, GCC makes a way of its own for what lies outside, which vectors take, too. Bits of negative floats grow downwards.
// NaN becomes one of the two.
template <uint32_t LOW, int32_t HIGH> INLINE float within(float x) {
    const uint32_t bits = same_bits<uint32_t>(x), above = bits < LOW ? bits : LOW;
    return same_bits<float>((int32_t)above < HIGH ? (int32_t)above : HIGH);
}

constexpr float LOG2_E = 1.44269502f, LOG2_E_REST = 1.92596303e-8f;  // together log2(e)
constexpr float ROUNDS = 12582912.0f;  // 1.5 * 2^23: what is added to it becomes an integer, in the lowest bits

// 2^(n + rest) where `shifted` is n + ROUNDS, and rest at most 1/2. The polynomial is off by 2e-9 at most.
INLINE float power_of_2(float shifted, float rest) {
    const float p = 1 + rest * (0.693147182f + rest * (0.240226477f + rest * (0.0555033237f + rest * (0.00961843692f +
                    rest * (0.0013398875f + rest * 0.00015353362f)))));
    return same_bits<float>(same_bits<uint32_t>(p) + (same_bits<uint32_t>(shifted) << 23));
}

// e^x up to two units in the last place; below -87 and above 88 what it is there.
INLINE float exponential(float x) {
    const float at = within<0xc2ae0000u, 0x42b00000>(x), shifted = at * LOG2_E + ROUNDS;
    const float y = power_of_2(shifted, (at * LOG2_E - (shifted - ROUNDS)) + at * LOG2_E_REST);
    return x == x ? y : x;  // NaN stays
}

constexpr float SLOPE = 1.5957691216f, CUBIC = 0.044715f;  // of 2 sqrt(2 / pi) (x + CUBIC x^3)
constexpr int64_t FEW = 1 << 14;                           // elements that one thread does sooner than two

// By which GELU multiplies x. Of NaN it is a number.
INLINE float sigmoid(float x) {
    const float at = within<0xc2fc0000u, 0x42fc0000>(x * (-SLOPE * LOG2_E - SLOPE * LOG2_E * CUBIC * (x * x)));  // -126, 126
    const float shifted = at + ROUNDS;
    return 1 / (1 + power_of_2(shifted, at - (shifted - ROUNDS)));
}

// Of GELU at x, whose sigmoid is s.
INLINE float gelu_slope(float x, float s) { return s + x * s * (1 - s) * (SLOPE + 3 * SLOPE * CUBIC * (x * x)); }

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

// Of a row, or of null: which of them it is, a loop of vectors has to know as it is compiled.
INLINE float or_0(const float* row, int64_t i) { return row[i]; }
INLINE float or_0(std::nullptr_t, int64_t) { return 0; }

template <class Row, class T>
void scale_row(const Norm& norm, Moments moments, const float* x, Row shift, T* y, int64_t n) {
    const float mean = moments.mean, scale = moments.scale, *gain = norm.gain;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * scale * gain[i] + or_0(shift, i);
}

template <class T> Moments normalize(const Norm& norm, const float* x, T* y, int64_t n) {
    float sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += x[i];
    const float mean = sum / n;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
    const Moments moments{mean, 1 / std::sqrt(squares / n + norm.eps)};
    if (norm.shift) scale_row(norm, moments, x, norm.shift, y, n);
    else scale_row(norm, moments, x, nullptr, y, n);
    return moments;
}

template <class A, class B> INLINE float dot(const A* a, const B* b, int64_t n) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

// The pairs of x(i) and x(i + half) by their angles, times scale.
template <class X, class Y>
void turn_pairs(X&& x, const float* cosines, const float* sines, float sign, float scale, Y* y, int64_t half) {
#pragma omp simd
    for (int64_t i = 0; i < half; i++) {
        const float first = x(i), second = x(i + half), sine = sign * sines[i];
        y[i] = (first * cosines[i] - second * sine) * scale;
        y[i + half] = (second * cosines[i] + first * sine) * scale;
    }
}

// The largest of n numbers, past those that are none. Clang begins a maximum with the least finite number, not minus infinity.
template <class T> float largest_of(const T* x, int64_t n) {
    float largest = -INFINITY;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < n; i++) largest = x[i] > largest ? (float)x[i] : largest;
    return largest == -FLT_MAX && !std::count(x, x + n, largest) ? -INFINITY : largest;
}

}  // namespace
