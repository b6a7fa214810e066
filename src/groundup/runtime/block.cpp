// A block of GPT-2 for a few new tokens, over a cache of keys and values: norm, attention, norm, MLP in one call.
//
// What lies between the products is little work, and was many calls: here it runs in the time that the calls took. Rows
// are new tokens, of one text or of many. All keys and values are written before anyone attends, so that a token sees
// those before it in the same call. What a row computes does not depend on the others.
#include "gelu.cpp"
#include "kernels.cpp"

namespace {

struct Matrix {  // (N, K), as `linear` takes it
    const void* weight;
    const float *scale, *bias;
    int64_t N, K;
    float limit;
    int32_t type;
};

struct Norm {
    const float *gain, *shift;  // shift may be null
    float eps;
};

struct Block {
    Norm ln_1, ln_2;
    Matrix c_attn, attn_proj, c_fc, mlp_proj;
};

struct Cache {  // of one layer: keys and values (rows, H, room, D); head h of row r begins at r * row + h * room * D
    float *keys, *values;
    int64_t row, room, H, D;
};

void normalize(const Norm& norm, const float* x, float* y, int64_t C) {
    float sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < C; i++) sum += x[i];
    const float mean = sum / C;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < C; i++) squares += (x[i] - mean) * (x[i] - mean);
    const float scale = 1 / std::sqrt(squares / C + norm.eps);
#pragma omp simd
    for (int64_t i = 0; i < C; i++) y[i] = (x[i] - mean) * scale * norm.gain[i] + (norm.shift ? norm.shift[i] : 0.0f);
}

// One head of one row over S positions: y (D) is the mean of values, weighted by how well the query fits their keys.
void attend(const float* q, const float* keys, const float* values, int64_t S, int64_t D, float* weights, float* y) {
    const float scale = 1 / std::sqrt((float)D);
    float largest = -INFINITY, total = 0;
    for (int64_t s = 0; s < S; s++) {
        float fit = 0;
#pragma omp simd reduction(+ : fit)
        for (int64_t d = 0; d < D; d++) fit += q[d] * keys[s * D + d];
        weights[s] = fit * scale;
        largest = std::max(largest, weights[s]);
    }
#pragma omp simd reduction(+ : total)
    for (int64_t s = 0; s < S; s++) total += weights[s] = exponential(weights[s] - largest);
    std::fill(y, y + D, 0.0f);
    for (int64_t s = 0; s < S; s++) {
        const float weight = weights[s] / total;
#pragma omp simd
        for (int64_t d = 0; d < D; d++) y[d] += weight * values[s * D + d];
    }
}

}  // namespace

extern "C" {
void linear(int type, const float*, const void*, const float*, const float*, float, float*, int64_t, int64_t, int64_t);

// x (M, C), the residual stream, is changed in place. Token m belongs to rows[m] of the cache, at positions[m].
void block(const Block* block, const Cache* cache, float* x, const int64_t* rows, const int64_t* positions, int64_t M) {
    const int64_t H = cache->H, D = cache->D, C = block->c_attn.K, wide = block->c_fc.N;
    Buffer<float> norm(M * C), qkv(M * 3 * C), hidden(M * wide);
    auto multiply = [M](const Matrix& m, const float* x, float* y) {
        linear(m.type, x, m.weight, m.scale, m.bias, m.limit, y, M, m.N, m.K);
    };
    auto add = [&] {
        for (int64_t i = 0; i < M * C; i++) x[i] += norm[i];
    };
    for (int64_t m = 0; m < M; m++) normalize(block->ln_1, x + m * C, norm + m * C, C);
    multiply(block->c_attn, norm, qkv);
    for (int64_t m = 0; m < M; m++)
        for (int64_t h = 0; h < H; h++) {
            const float* k = qkv + m * 3 * C + C + h * D;
            const int64_t at = rows[m] * cache->row + (h * cache->room + positions[m]) * D;
            std::copy(k, k + D, cache->keys + at);
            std::copy(k + C, k + C + D, cache->values + at);
        }
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
    for (int64_t m = 0; m < M; m++)
        for (int64_t h = 0; h < H; h++) {
            Buffer<float> weights(positions[m] + 1);
            const int64_t at = rows[m] * cache->row + h * cache->room * D;
            attend(qkv + m * 3 * C + h * D, cache->keys + at, cache->values + at, positions[m] + 1, D, weights,
                   hidden + m * C + h * D);
        }
    multiply(block->attn_proj, hidden, norm);
    add();
    for (int64_t m = 0; m < M; m++) normalize(block->ln_2, x + m * C, norm + m * C, C);
    multiply(block->c_fc, norm, hidden);
#pragma omp parallel for if (M > 1)
    for (int64_t m = 0; m < M; m++) gelu(hidden + m * wide, wide);
    multiply(block->mlp_proj, hidden, norm);
    add();
}
}
