// Products of a few rows with a large matrix that is not packed: what decoding on a CPU spends its time on.
//
// A token reads every weight once, so the aim is the speed of memory: weights are read in streams that hardware knows to
// fetch ahead, and whatever their type, they are widened in registers. Types of floats share one shape of code, `tile`: R
// rows of weights by M rows of x, a vector of partial sums for each pair, added in one order whatever R and M are.
// Packed weights of 8 bits are in packed.cpp, many rows in prompt.cpp, attention in block.cpp.
#if defined(__x86_64__)
#include <immintrin.h>
#define IN_REGISTER(v) asm("" : "+x"(v))  // else GCC reads it from memory again for each use
#elif defined(__aarch64__)
#include <arm_neon.h>
#define IN_REGISTER(v) asm("" : "+w"(v))
#endif

namespace {

constexpr int64_t FEW_ROWS = 32;  // rows of x: with more, weights are widened once for all
constexpr int64_t AHEAD = 4 << 10;  // bytes: while further rows are multiplied, hardware sees no need to fetch weights
constexpr int64_t TASK = 96 << 10, LONG_TASK = 1536 << 10;  // bytes of weights that a core takes at a time

// Types of weights, and of keys and values, beside Fp32, whose rows may have a scale behind them: W as stored.
struct Bf16 {  // the upper half of a float
    typedef uint16_t W;
    static constexpr int64_t BEHIND = 0;
    static Floats widen(const W* w) {
        return (Floats)(__builtin_convertvector(read<Vector<uint16_t, L>>(w), Vector<uint32_t, L>) << 16);
    }
};
struct Fp16 {
    typedef uint16_t W;
    static constexpr int64_t BEHIND = 0;
    static Floats widen(const W* w) {
#if defined(__AVX512BW__)
        return (Floats)_mm512_cvtph_ps(read<__m256i>(w));
#elif defined(__AVX2__)
        return (Floats)_mm256_cvtph_ps(read<__m128i>(w));
#elif defined(__aarch64__)  // where GCC 12 has no _Float16
        return vcvt_f32_f16(read<float16x4_t>(w));
#else
        return __builtin_convertvector(read<Vector<_Float16, L>>(w), Floats);
#endif
    }
};
struct Int8 {
    typedef int8_t W;
    static constexpr int64_t BEHIND = sizeof(float);  // the scale
    static Floats widen(const W* w) {
#if defined(__AVX512BW__)  // one instruction: GCC makes many of the conversion below
        return __builtin_convertvector((Ints)_mm512_cvtepi8_epi32(read<__m128i>(w)), Floats);
#elif defined(__AVX2__)
        return __builtin_convertvector((Ints)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)w)), Floats);
#else
        return __builtin_convertvector(read<Vector<int8_t, L>>(w), Floats);
#endif
    }
};
template <class V, size_t... i> V pairs(V a, V b, std::index_sequence<i...>) {
    return __builtin_shufflevector(a, b, 2 * i...) + __builtin_shufflevector(a, b, 2 * i + 1 ...);
}

// The lanes of each of n <= L vectors added up, sum i in lane i: neighbors first, log2(L) times.
template <class V> V add_lanes(V* v, int n) {
#pragma GCC unroll 4
    for (int width = 1; width < L; width *= 2, n = (n + 1) / 2)
#pragma GCC unroll 8
        for (int i = 0; i < (n + 1) / 2; i++)
            v[i] = pairs(v[2 * i], v[std::min(2 * i + 1, n - 1)], std::make_index_sequence<L>{});
    return v[0];
}

struct Task {  // y (M, N) = x (M, K) times w (N, K) turned, which may have a scale per output, plus a bias
    const float* x;
    const void* w;
    const float *w_scale, *bias;
    float* y;
    int64_t M, N, K, stride;  // of x, from a row to the next
};

template <class T> void multiply_many(const Task& t);  // in prompt.cpp
void multiply_packed(const Task& t);  // in packed.cpp

// Outputs n, n + gap, .. (R of them) of rows m .. m + M.
template <class T, int R, int M> void tile(const Task& t, int64_t m, int64_t n, int64_t gap) {
    typedef typename T::W W;
    const float* x = t.x + m * t.stride;
    const W* w = (const W*)t.w + n * t.K;
    Floats sums[M * R] = {};
    auto step = [&sums](const float* x, int64_t x_stride, const W* w, int64_t w_stride) {
        Floats xs[M];
#pragma GCC unroll 8
        for (int i = 0; i < M; i++) {
            xs[i] = read<Floats>(x + i * x_stride);
            IN_REGISTER(xs[i]);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            if (M > 1) __builtin_prefetch(w + r * w_stride + AHEAD / sizeof(W));
            const Floats wide = T::widen(w + r * w_stride);
#pragma GCC unroll 8
            for (int i = 0; i < M; i++) sums[i * R + r] += wide * xs[i];
        }
    };
    int64_t k = 0;
    for (; k + L <= t.K; k += L) step(x + k, t.stride, w + k, gap * t.K);
    if (k < t.K) {  // the rest of the rows, with zeros behind
        float x_end[M * L] = {};
        W w_end[R * L] = {};
        for (int i = 0; i < M; i++) std::copy(x + i * t.stride + k, x + i * t.stride + t.K, x_end + i * L);
        for (int r = 0; r < R; r++) std::copy(w + r * gap * t.K + k, w + (r * gap + 1) * t.K, w_end + r * L);
        step(x_end, L, w_end, L);
    }
    const Floats total = add_lanes(sums, M * R);
    for (int i = 0; i < M; i++)
        for (int r = 0; r < R; r++) {
            const int64_t at = n + r * gap;
            t.y[(m + i) * t.N + at] = total[i * R + r] + (t.bias ? t.bias[at] : 0.0f);
        }
}

// Tiles of R rows of weights over n .. end, without the last few. The rows of a tile lie far apart, so that each reads on
// where that of the tile before it ended: R long streams are what hardware fetches ahead. Returns where the rest begins.
template <class T, int R, int M> int64_t tiles(const Task& t, int64_t n, int64_t end) {
    const int64_t gap = (end - n) / R;
    for (int64_t i = n; i < n + gap; i++) {
        int64_t m = 0;
        for (; m + M <= t.M; m += M) tile<T, R, M>(t, m, i, gap);
        for (; m < t.M; m++) tile<T, R, 1>(t, m, i, gap);
    }
    return n + R * gap;
}

// How many of n rows, each of so many bytes, a core takes at a time, whichever core is free: another may be slow. A third of
// its part, where that is long: each stream begins slowly.
int64_t rows_of_a_task(int64_t n, int64_t bytes) {
    return std::max<int64_t>(4, std::clamp(n * bytes / (3 * omp_get_max_threads()), TASK, LONG_TASK) / (4 * bytes) * 4);
}

template <class T> void multiply(const Task& t) {
    if (t.M > FEW_ROWS) return multiply_many<T>(t);
    const int64_t some = rows_of_a_task(t.N, t.K * sizeof(typename T::W));
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t first = 0; first < t.N; first += some) {
        int64_t n = first, end = std::min(t.N, first + some);
        if (t.M < 4) n = tiles<T, 4, 1>(t, n, end);
        n = tiles<T, L / 4, 4>(t, n, end);
        tiles<T, 1, 4>(t, n, end);
    }
}

// Integers of -127 to 127.
void quantize(const float* x, int64_t K, int8_t* q, float* scale) {
    int32_t largest = 0x0da24260;  // of 1e-30f. The bits of positive floats have their order, and NaN's are the largest
    for (int64_t k = 0; k < K; k++) largest = std::max(largest, read<int32_t>(x + k) & 0x7fffffff);
    const float bound = read<float>(&largest), factor = 127 / bound;
    for (int64_t k = 0; k < K; k++) q[k] = (int8_t)std::rint(x[k] * factor);
    *scale = bound / 127;
}

}  // namespace
