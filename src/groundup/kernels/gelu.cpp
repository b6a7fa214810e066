// What training does beside products, one pass over memory each: GELU in its tanh form, as x times a sigmoid, its
// gradient, and the rotation of queries or keys, which may be normalized before.
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

// e^x up to two units in the last place: 2^n times a polynomial of the rest, which is at most ln(2) / 2.
inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    const float shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: n is in the lowest bits
    const float n = shifted - 12582912.0f;
    const float r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
    const float p = 1 + r * (1 + r * (0.5f + r * (1 / 6.0f + r * (1 / 24.0f + r * (1 / 120.0f + r * (1 / 720.0f))))));
    int32_t bits, power;
    std::memcpy(&bits, &p, 4), std::memcpy(&power, &shifted, 4);
    bits += (int32_t)((uint32_t)power << 23);
    float y;
    std::memcpy(&y, &bits, 4);
    return y;
}

constexpr float SLOPE = 1.5957691216f, CUBIC = 0.044715f;  // of 2 sqrt(2 / pi) (x + CUBIC x^3)
constexpr int64_t FEW = 1 << 14;                           // elements that one thread does sooner than two

inline float sigmoid(float x) { return 1 / (1 + exponential(-SLOPE * (x + CUBIC * x * x * x))); }

struct Bf16Number {  // the upper half of a float
    uint16_t bits;
    operator float() const {
        const uint32_t wide = (uint32_t)bits << 16;
        float x;
        std::memcpy(&x, &wide, 4);
        return x;
    }
    Bf16Number& operator=(float x) {  // the nearest, of two as near the even one; NaN stays NaN
        uint32_t wide;
        std::memcpy(&wide, &x, 4);
        bits = x == x ? (wide + 0x7fff + (wide >> 16 & 1)) >> 16 : 0x7fc0;
        return *this;
    }
};

template <class T> void gelu_of(const T* x, T* y, int64_t n) {
#pragma omp parallel for simd if (n > FEW)
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * sigmoid(x[i]);
}

// What x gets, where y gets `grad`. Nothing but x was kept: its sigmoid is computed again.
template <class T> void gelu_back(const T* x, const T* grad, T* grad_x, int64_t n) {
#pragma omp parallel for simd if (n > FEW)
    for (int64_t i = 0; i < n; i++) {
        const float at = x[i], s = sigmoid(at);
        grad_x[i] = grad[i] * (s + at * s * (1 - s) * SLOPE * (1 + 3 * CUBIC * at * at));
    }
}

void gelu(float* x, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) x[i] *= sigmoid(x[i]);
}

template <class A, class B> float dot(const A* a, const B* b, int64_t n) {
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

struct Heads {  // their sizes: tokens of x lie `stride` apart, and the table of angles repeats after n_angles tokens
    int64_t n_tokens, stride, n_angles, n_heads, half;
};

template <class T>
void rotate_of(const T* x, const float* cosines, const float* sines, T* y, float* scales, float eps, Heads s, float sign) {
#pragma omp parallel for if (s.n_tokens * s.n_heads * s.half > FEW)
    for (int64_t t = 0; t < s.n_tokens; t++)
        for (int64_t h = 0; h < s.n_heads; h++) {
            const int64_t width = 2 * s.half, angles = t % s.n_angles * width, n = t * s.n_heads + h;
            const T* head = x + t * s.stride + h * width;
            const float scale = scales ? 1 / std::sqrt(dot(head, head, width) / width + eps) : 1;
            if (scales) scales[n] = scale;
            turn_pairs([head](int64_t i) -> float { return head[i]; }, cosines + angles, sines + angles, sign, scale,
                       y + n * width, s.half);
        }
}

template <class T>
void rotate_back(const T* grad, const float* cosines, const float* sines, T* grad_x, const T* y, const float* scales, Heads s) {
#pragma omp parallel for if (s.n_tokens * s.n_heads * s.half > FEW)
    for (int64_t t = 0; t < s.n_tokens; t++)
        for (int64_t h = 0; h < s.n_heads; h++) {
            const int64_t width = 2 * s.half, angles = t % s.n_angles * width, n = t * s.n_heads + h;
            const T *g = grad + t * s.stride + h * width, *of_y = y + n * width;
            const float along = dot(g, of_y, width) / width;
            turn_pairs([=](int64_t i) -> float { return g[i] - along * of_y[i]; }, cosines + angles, sines + angles, -1,
                       scales[n], grad_x + n * width, s.half);
        }
}

}  // namespace

extern "C" {

// type: 0 fp32, 1 bf16.
void gelu_forward(int type, const void* x, void* y, int64_t n) {
    if (type) gelu_of((const Bf16Number*)x, (Bf16Number*)y, n);
    else gelu_of((const float*)x, (float*)y, n);
}

void gelu_backward(int type, const void* x, const void* grad, void* grad_x, int64_t n) {
    if (type) gelu_back((const Bf16Number*)x, (const Bf16Number*)grad, (Bf16Number*)grad_x, n);
    else gelu_back((const float*)x, (const float*)grad, (float*)grad_x, n);
}

// Of every head of each token, the pairs (i, i + half) by their angles; `sign` -1 turns back. Tokens of y lie one behind the
// other. Where there is room for `scales`, one for each head, a head gets the mean square 1 before.
void rotate(int type, const void* x, const float* cosines, const float* sines, void* y, float* scales, float eps,
            int64_t n_tokens, int64_t stride, int64_t n_angles, int64_t n_heads, int64_t half, float sign) {
    const Heads s = {n_tokens, stride, n_angles, n_heads, half};
    if (type) rotate_of((const Bf16Number*)x, cosines, sines, (Bf16Number*)y, scales, eps, s, sign);
    else rotate_of((const float*)x, cosines, sines, (float*)y, scales, eps, s, sign);
}

// The gradient of x, from that of y: (grad - y mean(y grad)) turned back, times the scale.
void rotate_backward(int type, const void* grad, const float* cosines, const float* sines, void* grad_x, const void* y,
                     const float* scales, int64_t n_tokens, int64_t stride, int64_t n_angles, int64_t n_heads,
                     int64_t half) {
    const Heads s = {n_tokens, stride, n_angles, n_heads, half};
    if (type) rotate_back((const Bf16Number*)grad, cosines, sines, (Bf16Number*)grad_x, (const Bf16Number*)y, scales, s);
    else rotate_back((const float*)grad, cosines, sines, (float*)grad_x, (const float*)y, scales, s);
}
}
