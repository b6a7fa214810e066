// The squared ReLU and its gradient, one pass over memory each. A part of training.cpp.
namespace {

template <class T> void relu_squared_of(const T* x, T* y, int64_t n) {
#pragma omp parallel for simd if (n > FEW)
    for (int64_t i = 0; i < n; i++) {
        const float at = x[i], kept = at < 0 ? 0.0f : at;  // NaN stays NaN
        y[i] = kept * kept;
    }
}

// What x gets, where y gets `grad`. The root of a square, both rounded, is what was squared.
template <class T> void relu_squared_back(const T* y, const T* grad, T* grad_x, int64_t n) {
#pragma omp parallel for simd if (n > FEW)
    for (int64_t i = 0; i < n; i++) {
        T root;
        root = std::sqrt((float)y[i]);
        grad_x[i] = grad[i] * (2 * (float)root);
    }
}

}  // namespace

extern "C" {

// type: 0 fp32, 1 bf16.
void relu_squared_forward(int type, const void* x, void* y, int64_t n) {
    if (type) relu_squared_of((const Bf16Number*)x, (Bf16Number*)y, n);
    else relu_squared_of((const float*)x, (float*)y, n);
}

void relu_squared_backward(int type, const void* y, const void* grad, void* grad_x, int64_t n) {
    if (type) relu_squared_back((const Bf16Number*)y, (const Bf16Number*)grad, (Bf16Number*)grad_x, n);
    else relu_squared_back((const float*)y, (const float*)grad, (float*)grad_x, n);
}
}
