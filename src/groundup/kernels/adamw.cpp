// A step of AdamW (Loshchilov & Hutter 2019) and the length of all gradients: one pass over memory each, by all cores, however
// many tensors there are. A part of training.cpp.
#include <numeric>
#include <vector>

namespace {

constexpr int64_t NUMBERS_OF_A_PART = 1 << 14;  // that a core takes at a time

struct AdamTensor {  // a parameter, and its state: averages of the gradient and of its square, steps so far
    float *p, *average, *square, *step;
};

struct AdamStep {
    double lr, beta1, beta2, eps, decay;
};

struct Part {  // of a tensor
    int64_t tensor, first, n;
};

std::vector<Part> parts_of(const int64_t* sizes, int64_t n) {
    std::vector<Part> parts;
    for (int64_t t = 0; t < n; t++)
        for (int64_t first = 0; first < sizes[t]; first += NUMBERS_OF_A_PART)
            parts.push_back({t, first, std::min(NUMBERS_OF_A_PART, sizes[t] - first)});
    return parts;
}

void move_part(const AdamTensor& t, const float* grad, int64_t first, int64_t n, const AdamStep& how) {
    float *p = t.p + first, *average = t.average + first, *square = t.square + first;
    grad += first;
    const float kept = 1 - how.lr * how.decay, fresh = 1 - how.beta1, fresh_square = 1 - how.beta2, beta2 = how.beta2, eps = how.eps;
    const float length = how.lr / (1 - std::pow(how.beta1, *t.step));  // both averages began with zeros
    const float grown = 1 / std::sqrt(1 - std::pow(how.beta2, *t.step));
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        average[i] += fresh * (grad[i] - average[i]);
        square[i] = beta2 * square[i] + fresh_square * grad[i] * grad[i];
        p[i] = kept * p[i] - length * average[i] / (std::sqrt(square[i]) * grown + eps);
    }
}

}  // namespace

extern "C" {

void adamw_step(const AdamTensor* all, const float* const* grads, const int64_t* sizes, int64_t n, const AdamStep* how) {
    const auto parts = parts_of(sizes, n);
    for (int64_t t = 0; t < n; t++) *all[t].step += 1;
    Shares shares;
#pragma omp parallel
    shares.each(parts.size(), [&](int64_t i) {
        const Part& part = parts[i];
        move_part(all[part.tensor], grads[part.tensor], part.first, part.n, *how);
    });
}

// The square root of the sum of all squares. Sums of parts are added in their order, whoever has made them.
double length_of(const float* const* all, const int64_t* sizes, int64_t n) {
    const auto parts = parts_of(sizes, n);
    std::vector<float> squares(parts.size());
    Shares shares;
#pragma omp parallel
    shares.each(parts.size(), [&](int64_t i) {
        const float* at = all[parts[i].tensor] + parts[i].first;
        squares[i] = dot(at, at, parts[i].n);
    });
    return std::sqrt(std::accumulate(squares.begin(), squares.end(), 0.0));
}
}
