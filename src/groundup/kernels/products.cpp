// Products of few or many rows with weights of any type, draws and the largest logits: what decoding has beside block.cpp.
#include "numbers.cpp"
#include "vectors.cpp"
#include "kernels.cpp"
#include "draw.cpp"
#include "prompt.cpp"
#include "largest.cpp"
#include "unit.cpp"
#include "packed.cpp"
#include "packed_unit.cpp"

extern "C" {

// type: 0 fp32, 1 bf16, 2 fp16, 3 int8, which is packed and needs w_scale (N). bias may be null. Many rows of x are put a
// cache line further apart: at a distance of some KB, all of a tile would compete for the same places of a cache.
void linear(int type, const float* x, const void* w, const float* w_scale, const float* bias, float* y, int64_t M,
            int64_t N, int64_t K) {
    Task t = {x, w, w_scale, bias, y, M, N, K, K};
    if (type == 3) return multiply_packed(t);
    constexpr int64_t LINE = 64 / sizeof(float);
    const bool many = M > FEW_ROWS;
    if (many) t.stride = (K + LINE - 1) / LINE * LINE + LINE;
    Buffer<float> apart(many ? M * t.stride : 0);
    if (many) {
        t.x = apart;
#pragma omp parallel for
        for (int64_t m = 0; m < M; m++) std::copy(x + m * K, x + (m + 1) * K, apart + m * t.stride);
    }
    type == 0 ? multiply<Fp32>(t) : type == 1 ? multiply<Bf16>(t) : multiply<Fp16>(t);
}
}
