// The blocks of GPT-2 for a few new tokens, over a cache of keys and values: all of them in one call.
//
// What lies between the products is little work. As calls from Python it would take a tenth of the time: weights stream
// through the caches, and whatever Python needs has to come from memory again after each product. Rows are new tokens,
// of one text or of many. What a row computes does not depend on the others.
#include "numbers.cpp"
#include "vectors.cpp"
#include "kernels.cpp"
#include "prompt.cpp"
#include "sum.cpp"

namespace {

struct Matrix {  // (N, K), as `linear` takes it
    const void* weight;
    const float *scale, *bias;
    int64_t N, K;
    int32_t type;
};

struct Block {
    Norm ln_1, ln_2;
    Matrix c_attn, attn_proj, c_fc, mlp_proj;
};

struct Cache {  // keys and values (layers, rows, H, room, D), of type 0 fp32, 2 fp16 or 3 int8, with a scale behind each D
    void *keys, *values;
    int64_t layer, row, room, H, D;  // elements from a layer to the next, and from a row to the next
    int32_t type;
};

// A row of D numbers, as it is kept.
template <class T> void keep(const float* x, int64_t D, typename T::W* row) {
    if constexpr (T::BEHIND) {
        float scale;
        quantize(x, D, row, &scale);
        std::memcpy(row + D, &scale, sizeof scale);
    } else
        for (int64_t d = 0; d < D; d += L) write(part<Fp32>(x + d, D - d), row + d, D - d);
}

// Products of a query and a key of any width, to be added up: called, as GCC takes two seconds to write them out for L keys.
template <class T> __attribute__((noinline)) Floats along_any(const float* q, const typename T::W* key, int64_t n) {
    Floats sums = {};
    for (int64_t d = 0; d < n; d += L) sums += part<Fp32>(q + d, n - d) * part<T>(key + d, n - d);
    return sums;
}

// The same of a width that is known as this is compiled, or 0.
template <class T, int64_t WIDTH> Floats along(const float* q, const typename T::W* key, int64_t n) {
    if (!WIDTH) return along_any<T>(q, key, n);
    constexpr bool WHOLE = WIDTH % L == 0;
    Floats sums = {};
#pragma GCC unroll 8
    for (int64_t d = 0; d < WIDTH; d += L) sums += part<Fp32, WHOLE>(q + d, WIDTH - d) * part<T, WHOLE>(key + d, WIDTH - d);
    return sums;
}

// One head of one row over S positions: y (D) is the mean of values, weighted by how well the query fits their keys. WIDTH is
// D where that is known as this is compiled, else 0.
template <class T, int64_t WIDTH>
void attend(const float* q, const typename T::W* keys, const typename T::W* values, int64_t S, int64_t n, float* y) {
    constexpr bool WHOLE = WIDTH && WIDTH % L == 0;
    const int64_t D = WIDTH ? WIDTH : n, width = D + T::BEHIND;
    Buffer<float> weights(S);
    const float scale = 1 / std::sqrt((float)D);
    auto fetch = [](const typename T::W* from, int64_t n) {
        for (int64_t i = 0; i < n; i += 64 / sizeof *from) __builtin_prefetch(from + i);
    };
    constexpr int64_t FAR = 2048 / sizeof *keys;  // elements ahead: hardware finds short streams late
    fetch(values, std::min(S * width, 2 * FAR));  // while keys are read
    auto fit = [&](auto at) {  // a lane for each of L keys
        Floats sums[L];
        float scales[L];
#pragma GCC unroll 16
        for (int j = 0; j < L; j++) {
            const auto* key = keys + at(j) * width;
            fetch(key + FAR, D);
            sums[j] = along<T, WIDTH>(q, key, D);
            scales[j] = scale_of<T>(key, D) * scale;
        }
        const Floats fits = add_lanes(sums, L) * read<Floats>(scales);
        for (int j = 0; j < L; j++) weights[at(j)] = fits[j];
    };
    const int64_t gap = S / L * (L / 2);  // two streams, as few are read fastest where each is short
    for (int64_t s = 0; s < gap; s += L / 2) fit([=](int j) { return s + j % (L / 2) + j / (L / 2) * gap; });
    if (2 * gap < S) fit([=](int j) { return std::min(2 * gap + j, S - 1); });
    const float largest = largest_of(weights + 0, S);
    float total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t s = 0; s < S; s++) total += weights[s] = exponential(weights[s] - largest);
    for (int64_t first = 0; first < D; first += 4 * L) {
        Floats sums[4] = {};
        auto each = [&](auto&& act) {
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                if (int64_t d = first + i * L; d < D) act(sums[i], d);
        };
        auto add = [&](int64_t s) {
            const auto* value = values + s * width;
            const float weight = weights[s] * scale_of<T>(value, D);
            fetch(value + FAR, D);
            each([&](Floats& sum, int64_t d) { sum += weight * part<T, WHOLE>(value + d, D - d); });
        };
        for (int64_t s = 0; s < S / 2; s++) add(s), add(s + S / 2);
        if (S % 2) add(S - 1);
        each([&](Floats& sum, int64_t d) { write(sum / total, y + d, D - d); });
    }
}

// Attention of M tokens in one layer, T of each text: queries, keys and values (M, 3 C) are read, y (M, C) is written.
// All keys and values are written before anyone attends, so that a token sees those before it in the same call.
template <class Type>
void attention(const Cache& cache, int64_t layer, const float* qkv, const int64_t* held, int64_t B, int64_t T, float* y) {
    typedef typename Type::W W;
    const int64_t H = cache.H, D = cache.D, C = H * D, width = D + Type::BEHIND;
    W* keys = (W*)cache.keys + layer * cache.layer;
    W* values = (W*)cache.values + layer * cache.layer;
    auto head = [&](int64_t b, int64_t h) { return b * cache.row + h * cache.room * width; };
#pragma omp parallel for if (B * T > FEW_ROWS)
    for (int64_t m = 0; m < B * T; m++)
        for (int64_t h = 0; h < H; h++) {
            const float* k = qkv + m * 3 * C + C + h * D;
            const int64_t at = head(m / T, h) + (held[m / T] + m % T) * width;
            keep<Type>(k, D, keys + at), keep<Type>(k + C, D, values + at);
        }
    const auto attend_one = D == 64 ? attend<Type, 64> : D == 32 ? attend<Type, 32> : attend<Type, 0>;
    const int64_t parts = T > FEW_ROWS ? std::max<int64_t>(1, T / (8 * ROWS)) : T;  // a core takes one at a time
#pragma omp parallel for collapse(3) schedule(dynamic, 1)
    for (int64_t b = 0; b < B; b++)
        for (int64_t i = 0; i < parts; i++)
            for (int64_t h = 0; h < H; h++) {
                const W *k = keys + head(b, h), *v = values + head(b, h);
                const int64_t first = i * T / parts, end = (i + 1) * T / parts, m = b * T + first;
                const float* q = qkv + m * 3 * C + h * D;
                if (parts == T)
                    attend_one(q, k, v, held[b] + end, D, y + m * C + h * D);
                else
                    attend_prompt<Type>(q, k, v, held[b] + first, end - first, D, y + m * C + h * D, C);
            }
}

}  // namespace

extern "C" {
void linear(int type, const float*, const void*, const float*, const float*, float*, int64_t, int64_t, int64_t);

// T new tokens of each of B texts, which are rows of the cache and hold held[b] already: qkv (B T, 3 C), y (B T, C).
void attend_layer(const Cache* cache, int64_t layer, const float* qkv, const int64_t* held, int64_t B, int64_t T,
                  float* y) {
    (cache->type == 0 ? attention<Fp32> : cache->type == 2 ? attention<Fp16> : attention<Int8>)(*cache, layer, qkv, held, B, T, y);
}

// The same through all blocks: x (B T, C), the residual stream, is changed in place.
void blocks(const Block* blocks, int64_t n, const Cache* cache, float* x, const int64_t* held, int64_t B, int64_t T) {
    const int64_t M = B * T, C = cache->H * cache->D;
    int64_t widest = 3 * C;
    for (int64_t layer = 0; layer < n; layer++) widest = std::max(widest, blocks[layer].c_fc.N);
    Buffer<float> norm(M * C), wide(M * widest), added(M * C);
    auto multiply = [M](const Matrix& m, const float* x, float* y) {
        linear(m.type, x, m.weight, m.scale, m.bias, y, M, m.N, m.K);
    };
    auto normalize_all = [&](const Norm& ln) {
#pragma omp parallel for if (M > FEW_ROWS)
        for (int64_t m = 0; m < M; m++) normalize(ln, x + m * C, norm + m * C, C);
    };
    auto add = [&] {
#pragma omp parallel for if (M > FEW_ROWS)
        for (int64_t i = 0; i < M * C; i++) x[i] += added[i];
    };
    for (int64_t layer = 0; layer < n; layer++) {
        const Block& block = blocks[layer];
        normalize_all(block.ln_1);
        multiply(block.c_attn, norm, wide);
        attend_layer(cache, layer, wide, held, B, T, norm);
        multiply(block.attn_proj, norm, added);
        add();
        normalize_all(block.ln_2);
        multiply(block.c_fc, norm, wide);
        const int64_t C_fc = block.c_fc.N;
#pragma omp parallel for if (M > 1)
        for (int64_t m = 0; m < M; m++) gelu(wide + m * C_fc, C_fc);
        multiply(block.mlp_proj, wide, added);
        add();
    }
}
}
