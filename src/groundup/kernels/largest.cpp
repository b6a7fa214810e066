// The k largest logits of a head from a quarter of its bytes, each to the bit what the whole product gives. Weights rounded to
// 8 bits tell every logit up to a bound; what may then be among the k largest is computed from the weights themselves. A
// part of products.cpp.
namespace {

// How far a product of x with a row of weights may be from that with the rounded row, in units of the row's scale. An error
// of rounding is half a unit at most, and those of a row together have no more than `length` (Cauchy and Schwarz). The first
// bounds the part of few large x, the second that of the rest; what is large is chosen for the smaller sum. Added is what
// floats lose: in these bounds, and in the two products, whose sums have K / L terms and the steps that add lanes.
float doubt(const float* x, int64_t K, float length) {
    float all = 0, squares = 0, least = INFINITY;
#pragma omp simd reduction(+ : all, squares)
    for (int64_t k = 0; k < K; k++) all += std::abs(x[k]), squares += x[k] * x[k];
    if (!(squares > 1e-20f && squares < INFINITY)) return INFINITY;  // below, squares of small x would be lost
    float large = squares;
    for (float border = std::sqrt(squares / K) / 2; large > 0; border *= 2) {
        float rest = 0;
        large = 0;
#pragma omp simd reduction(+ : large, rest)
        for (int64_t k = 0; k < K; k++) {
            const float size = std::abs(x[k]);
            large += size > border ? size : 0.0f;
            rest += size > border ? 0.0f : size * size;
        }
        least = std::min(least, 0.5f * large + length * std::sqrt(rest));
    }
    return 1.0001f * least + 128 * all * (K / L + 32) * 0x1p-23f;
}

template <class T> int64_t largest(const Task& t, const int8_t* q, const float* scale, float length, int64_t k) {
    Task rounded = t;
    rounded.w = q;
    multiply<Int8>(rounded);
    std::vector<int64_t> found, places_of_row;
    std::vector<float> low(t.N), most;
    for (int64_t m = 0; m < t.M; m++) {
        float* y = t.y + m * t.N;
        const float apart = doubt(t.x + m * t.K, t.K, length);
        if (!std::isfinite(apart)) return -1;
#pragma omp simd
        for (int64_t n = 0; n < t.N; n++) {
            low[n] = (y[n] - apart) * scale[n];
            y[n] = (y[n] + apart) * scale[n];
        }
        maxima(low.data(), t.N, most);
        const float least = kth_largest(low.data(), t.N, k, most);
        maxima(y, t.N, most);
        places_of_row.clear();
        places(y, t.N, most, [least](float value) { return value >= least; }, places_of_row);
        for (int64_t n : places_of_row) found.push_back(m * t.N + n);
        std::fill(y, y + t.N, -INFINITY);
    }
    if ((int64_t)found.size() > t.M * t.N / 8) return -1;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < (int64_t)found.size(); i++) tile<T, 1, 1>(t, found[i] / t.N, found[i] % t.N, 1);
    return found.size();
}

}  // namespace

extern "C" {

// Weights (N, K) of a type of `linear`, 0 to 2, rounded to 8 bits, with a scale per row. Returns the length of the largest
// error of a row, in units of its scale; what is no number makes it infinite.
float round_rows(int type, const void* w, int64_t N, int64_t K, int8_t* q, float* scale) {
    float length = 0;
#pragma omp parallel for reduction(max : length)
    for (int64_t n = 0; n < N; n++) {
        Buffer<float> row(K + L);
        auto widen = [&](auto of) {
            typedef decltype(of) T;
            for (int64_t k = 0; k < K; k += L) write(part<T>((const typename T::W*)w + n * K + k, K - k), row + k, K - k);
        };
        type == 0 ? widen(Fp32{}) : type == 1 ? widen(Bf16{}) : widen(Fp16{});
        quantize(row, K, q + n * K, scale + n);
        float squares = 0;
#pragma omp simd reduction(+ : squares)
        for (int64_t k = 0; k < K; k++) {
            const float error = row[k] / scale[n] - q[n * K + k];
            squares += error * error;
        }
        const float found = std::isfinite(squares) ? std::sqrt(squares) : INFINITY;
        length = std::max(length, found);
    }
    return length;
}

// The k largest of M rows of logits y (M, N), and some beside them; the others are -infinity. q, scale and length are what
// `round_rows` gave. Returns how many were computed; -1 where that cannot be done or they would be too many, and y is then of
// no use.
int64_t largest_logits(int type, const float* x, const void* w, const int8_t* q, const float* scale, float length, float* y,
                       int64_t M, int64_t N, int64_t K, int64_t k) {
    if (M > FEW_ROWS || k < 1 || k > N) return -1;
    const Task t = {x, w, nullptr, nullptr, y, M, N, K, K};
    return (type == 0 ? largest<Fp32> : type == 1 ? largest<Bf16> : largest<Fp16>)(t, q, scale, length, k);
}
}
