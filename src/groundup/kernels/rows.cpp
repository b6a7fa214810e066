// What a block of training does row by row beside products: back through a norm, dropout, sums. A part of training.cpp and
// training_bf16.cpp.
namespace {

template <class Row, class T>
void norm_back(const float* grad, const float* x, const float* gain, Row shift, Moments moments, int64_t n,
               const float* beside, float* to, float* of_gain, float* of_shift, T* y) {
    const float mean = moments.mean, scale = moments.scale;  // Clang lets no loop of vectors use a structured binding
    float sum = 0, along = 0;
#pragma omp simd reduction(+ : sum, along)
    for (int64_t j = 0; j < n; j++) {
        const float at = (x[j] - mean) * scale, g = grad[j] * gain[j];
        sum += g, along += g * at;
        of_gain[j] += grad[j] * at, of_shift[j] += grad[j];
        y[j] = at * gain[j] + or_0(shift, j);
    }
    sum /= n, along /= n;
#pragma omp simd
    for (int64_t j = 0; j < n; j++)
        to[j] = beside[j] + scale * (grad[j] * gain[j] - sum - (x[j] - mean) * scale * along);
}

// What x gets where y gets `grad`, added to `beside`; what gain and shift get is added to theirs. And y once more.
template <class T>
void norm_back(const Norm& norm, const float* grad, const float* x, Moments moments, int64_t n, const float* beside, float* to,
               float* of_gain, float* of_shift, T* y) {
    if (norm.shift) norm_back(grad, x, norm.gain, norm.shift, moments, n, beside, to, of_gain, of_shift, y);
    else norm_back(grad, x, norm.gain, nullptr, moments, n, beside, to, of_gain, of_shift, y);
}

// A row times its factors, plus what is beside it: a row, or null.
template <class Row, class T>
void drop_row(const float* x, int64_t row, const Dropout& dropout, int64_t n, Row beside, T* to) {
    const uint32_t number = dropout.row(row);
    if (dropout.dropped)
#pragma omp simd
        for (int64_t j = 0; j < n; j++) to[j] = x[j] * dropout.factor(number, dropout.columns[j]) + or_0(beside, j);
    else
#pragma omp simd
        for (int64_t j = 0; j < n; j++) to[j] = x[j] + or_0(beside, j);
}

template <class T> void add_rows(const T* x, int64_t rows, int64_t n, float* sums) {
    for (int64_t i = 0; i < rows; i++)
#pragma omp simd
        for (int64_t j = 0; j < n; j++) sums[j] += x[i * n + j];
}

}  // namespace
