// Dropout of rows of numbers, one pass over memory each way: what a number is multiplied with is counted and not kept. A
// part of training.cpp.
namespace {

template <class T> void drop(const T* x, T* y, int64_t rows, int64_t width, const Dropout& dropout) {
#pragma omp parallel for if (rows * width > FEW)
    for (int64_t i = 0; i < rows; i++) {
        const uint32_t number = dropout.row(i);
        const T* from = x + i * width;
        T* to = y + i * width;
#pragma omp simd
        for (int64_t j = 0; j < width; j++) to[j] = from[j] * dropout.factor(number, dropout.columns[j]);
    }
}

}  // namespace

extern "C" {

// type: 0 fp32, 1 bf16. Of gradients the same: they get the factors of what they are the gradients of.
void dropout(int type, const void* x, void* y, int64_t rows, int64_t width, uint32_t seed, uint32_t other_seed,
             uint32_t dropped) {
    const Dropout factors(seed, other_seed, dropped, width);
    if (type) drop((const Bf16Number*)x, (Bf16Number*)y, rows, width, factors);
    else drop((const float*)x, (float*)y, rows, width, factors);
}
}
