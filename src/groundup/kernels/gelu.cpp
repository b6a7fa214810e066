// What training does beside products, one pass over memory each: GELU, its gradient, and the rotation of queries or keys,
// which may be normalized before. A part of training.cpp.
namespace {

template <class T> void gelu_of(const T* x, T* y, int64_t n) {
#pragma omp parallel for simd if (n > FEW)
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * sigmoid(x[i]);
}

// What x gets, where y gets `grad`. Nothing but x was kept: its sigmoid is computed again.
template <class T> void gelu_back(const T* x, const T* grad, T* grad_x, int64_t n) {
#pragma omp parallel for simd if (n > FEW)
    for (int64_t i = 0; i < n; i++) grad_x[i] = grad[i] * gelu_slope(x[i], sigmoid(x[i]));
}

struct Heads {  // their sizes: tokens of x and y lie so far apart, and the table of angles repeats after n_angles tokens
    int64_t n_tokens, stride, y_stride, n_angles, n_heads, half;
};

template <class T>
void rotate_of(const T* x, const float* cosines, const float* sines, T* y, float* scales, float eps, Heads s, float sign) {
#pragma omp parallel for if (s.n_tokens * s.n_heads * s.half > FEW)
    for (int64_t t = 0; t < s.n_tokens; t++)
        for (int64_t h = 0; h < s.n_heads; h++) {
            const int64_t width = 2 * s.half, angles = t % s.n_angles * width;
            const T* head = x + t * s.stride + h * width;
            const float scale = scales ? 1 / std::sqrt(dot(head, head, width) / width + eps) : 1;
            if (scales) scales[t * s.n_heads + h] = scale;
            turn_pairs([head](int64_t i) -> float { return head[i]; }, cosines + angles, sines + angles, sign, scale,
                       y + t * s.y_stride + h * width, s.half);
        }
}

template <class T>
void rotate_back(const T* grad, const float* cosines, const float* sines, T* grad_x, const T* y, const float* scales, Heads s) {
#pragma omp parallel for if (s.n_tokens * s.n_heads * s.half > FEW)
    for (int64_t t = 0; t < s.n_tokens; t++)
        for (int64_t h = 0; h < s.n_heads; h++) {
            const int64_t width = 2 * s.half, angles = t % s.n_angles * width, place = t * s.y_stride + h * width;
            const T *g = grad + t * s.stride + h * width, *of_y = y + place;
            const float along = dot(g, of_y, width) / width;
            turn_pairs([=](int64_t i) -> float { return g[i] - along * of_y[i]; }, cosines + angles, sines + angles, -1,
                       scales[t * s.n_heads + h], grad_x + place, s.half);
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

// Of every head of each token, the pairs (i, i + half) by their angles; `sign` -1 turns back. y may be x. Where there is room
// for `scales`, one for each head, a head gets the mean square 1 before.
void rotate(int type, const void* x, const float* cosines, const float* sines, void* y, float* scales, float eps,
            int64_t n_tokens, int64_t stride, int64_t y_stride, int64_t n_angles, int64_t n_heads, int64_t half, float sign) {
    const Heads s = {n_tokens, stride, y_stride, n_angles, n_heads, half};
    if (type) rotate_of((const Bf16Number*)x, cosines, sines, (Bf16Number*)y, scales, eps, s, sign);
    else rotate_of((const float*)x, cosines, sines, (float*)y, scales, eps, s, sign);
}

// The gradient of x, from that of y: (grad - y mean(y grad)) turned back, times the scale. grad_x lies as y does.
void rotate_backward(int type, const void* grad, const float* cosines, const float* sines, void* grad_x, const void* y,
                     const float* scales, int64_t n_tokens, int64_t stride, int64_t y_stride, int64_t n_angles,
                     int64_t n_heads, int64_t half) {
    const Heads s = {n_tokens, stride, y_stride, n_angles, n_heads, half};
    if (type) rotate_back((const Bf16Number*)grad, cosines, sines, (Bf16Number*)grad_x, (const Bf16Number*)y, scales, s);
    else rotate_back((const float*)grad, cosines, sines, (float*)grad_x, (const float*)y, scales, s);
}
}
