// Causal attention of whole texts, forward and back, for training on a CPU: one head of one text is a task of a core.
//
// Nothing of the size T x T leaves the caches: a block of queries meets the keys up to its own end, its scores become
// weights where they lie, and going back they are computed again from the logarithm of each row's sum. A part of block.cpp.
namespace {

constexpr int64_t QUERIES = 48;  // of a block

struct View {  // (B, T, H, D) of type 0 fp32 or 1 bf16: elements from a text, a token and a head to the next
    void* at;
    int64_t text, token, head;
};

struct Sizes {
    int64_t B, T, H, D;
    int32_t type;
    uint32_t seed, other_seed, dropped;  // of 2^32 weights; 0: none
};

uint32_t mixed(uint32_t x) {  // each bit of x turns half of the others (Wellons 2018, "lowbias32")
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

// What a weight is multiplied with: 0 where it is dropped, else 1 over the share that is kept. Each has a number of its own,
// made of its row's and its column's, so that the way back finds the same ones without having kept any.
struct Dropout {
    Dropout(const Sizes& s)
        : seed(s.seed), dropped(s.dropped), T(s.T), kept(1 / (1 - s.dropped / 4294967296.0f)), columns(T) {
        for (int64_t j = 0; j < T; j++) columns[j] = mixed((uint32_t)j ^ s.other_seed);
    }
    uint32_t row(int64_t task, int64_t i) const { return mixed(mixed((uint32_t)(task * T + i)) ^ seed); }
    float factor(uint32_t row, int64_t j) const { return mixed(row ^ columns[j]) < dropped ? 0.0f : kept; }  // no branch
    const uint32_t seed, dropped;
    const int64_t T;
    const float kept;
    Buffer<uint32_t> columns;
};

// n elements, times a factor.
void widen(const void* from, int32_t type, int64_t first, int64_t n, float factor, float* to) {
    for (int64_t d = 0; d < n; d++)
        to[d] = factor * (type == 0 ? ((const float*)from)[first + d] : (float)((const Bf16Number*)from)[first + d]);
}

// A head of a text as floats, a row per token, times a factor.
void load(const View& view, const Sizes& s, int64_t task, float factor, float* to) {
    const int64_t start = task / s.H * view.text + task % s.H * view.head;
    for (int64_t t = 0; t < s.T; t++) widen(view.at, s.type, start + t * view.token, s.D, factor, to + t * s.D);
}

// The same turned, a column per token, with zeros behind the last.
void turn(const float* from, const Sizes& s, float* to, int64_t columns) {
    for (int64_t t = 0; t < columns; t += L)
        for (int64_t d = 0; d < s.D; d++)
            for (int64_t i = t; i < t + L; i++) to[d * columns + i] = i < s.T ? from[i * s.D + d] : 0.0f;
}

// n tokens from `first` on, times a factor.
void save(const float* from, float factor, const View& view, const Sizes& s, int64_t task, int64_t first, int64_t n) {
    const int64_t start = task / s.H * view.text + task % s.H * view.head;
    for (int64_t t = 0; t < n; t++)
        for (int64_t d = 0; d < s.D; d++) {
            const int64_t place = start + (first + t) * view.token + d;
            const float x = factor * from[t * s.D + d];
            if (s.type == 0) ((float*)view.at)[place] = x;
            else ((Bf16Number*)view.at)[place] = x;
        }
}

}  // namespace

extern "C" {

// y of every head, and the logarithm of each row's sum (B, H, T), from which the way back computes its weights again.
void attention_forward(const Sizes* sizes, const View* q, const View* k, const View* v, const View* y, float* log_sums) {
    const Sizes s = *sizes;
    const int64_t columns = (s.T + L - 1) / L * L + L;
    const float scale = 1 / std::sqrt((float)s.D);
#pragma omp parallel
    {
        Buffer<float> queries(s.T * s.D), keys(s.D * columns), values(s.T * s.D), scores(QUERIES * columns), out(QUERIES * s.D);
        const Dropout dropout(s);
        float total[QUERIES];
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < s.B * s.H; task++) {
            load(*q, s, task, scale, queries), load(*k, s, task, 1, values), turn(values, s, keys, columns);
            load(*v, s, task, 1, values);
            for (int64_t first = 0; first < s.T; first += QUERIES) {
                const int64_t n = std::min(QUERIES, s.T - first), end = first + n, wide = (end + L - 1) / L * L;
                product(n, wide, s.D, {queries + first * s.D, s.D, 1}, keys, columns, scores, columns, false);
                for (int64_t i = 0; i < n; i++) {
                    float *row = scores + i * columns, largest = row[0], sum = 0;
                    const int64_t seen = first + i + 1;
                    const uint32_t number = dropout.row(task, first + i);
#pragma omp simd reduction(max : largest)
                    for (int64_t j = 0; j < seen; j++) largest = std::max(largest, row[j]);
#pragma omp simd reduction(+ : sum)
                    for (int64_t j = 0; j < seen; j++) {
                        const float weight = exponential(row[j] - largest);
                        sum += weight, row[j] = weight * dropout.factor(number, j);
                    }
                    std::fill(row + seen, row + wide, 0.0f);
                    total[i] = sum, log_sums[task * s.T + first + i] = largest + std::log(sum);
                }
                product(n, s.D, end, {scores, columns, 1}, values, s.D, out, s.D, false);
                for (int64_t i = 0; i < n; i++) save(out + i * s.D, 1 / total[i], *y, s, task, first + i, 1);
            }
        }
    }
}

// What queries, keys and values get, where y gets `grad`.
void attention_backward(const Sizes* sizes, const View* q, const View* k, const View* v, const View* y, const View* grad,
                        const float* log_sums, const View* grad_q, const View* grad_k, const View* grad_v) {
    const Sizes s = *sizes;
    const int64_t columns = (s.T + L - 1) / L * L + L, whole = s.T * s.D;
    const float scale = 1 / std::sqrt((float)s.D);
#pragma omp parallel
    {
        Buffer<float> queries(whole), keys(whole), outputs(whole), grads(whole), of_keys(whole), of_values(whole);
        Buffer<float> keys_turned(s.D * columns), values_turned(s.D * columns), of_queries(QUERIES * s.D);
        Buffer<float> weights(QUERIES * columns), slopes(QUERIES * columns);
        const Dropout dropout(s);
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < s.B * s.H; task++) {
            load(*q, s, task, scale, queries), load(*v, s, task, 1, keys), turn(keys, s, values_turned, columns);
            load(*k, s, task, 1, keys), turn(keys, s, keys_turned, columns);
            load(*y, s, task, 1, outputs), load(*grad, s, task, 1, grads);
            std::fill(of_keys + 0, of_keys + whole, 0.0f), std::fill(of_values + 0, of_values + whole, 0.0f);
            for (int64_t first = 0; first < s.T; first += QUERIES) {
                const int64_t n = std::min(QUERIES, s.T - first), end = first + n, wide = (end + L - 1) / L * L;
                const float *g = grads + first * s.D, *out = outputs + first * s.D, *query = queries + first * s.D;
                product(n, wide, s.D, {query, s.D, 1}, keys_turned, columns, weights, columns, false);
                product(n, wide, s.D, {g, s.D, 1}, values_turned, columns, slopes, columns, false);
                for (int64_t i = 0; i < n; i++) {
                    float *weight = weights + i * columns, *slope = slopes + i * columns, mean = 0;
                    const float log_sum = log_sums[task * s.T + first + i];
                    const int64_t seen = first + i + 1;
                    const uint32_t number = dropout.row(task, first + i);
#pragma omp simd reduction(+ : mean)
                    for (int64_t d = 0; d < s.D; d++) mean += g[i * s.D + d] * out[i * s.D + d];
#pragma omp simd
                    for (int64_t j = 0; j < seen; j++) {
                        const float whole = exponential(weight[j] - log_sum), factor = dropout.factor(number, j);
                        weight[j] = whole * factor;
                        slope[j] = whole * (slope[j] * factor - mean);
                    }
                    std::fill(weight + seen, weight + wide, 0.0f), std::fill(slope + seen, slope + wide, 0.0f);
                }
                product(n, s.D, end, {slopes, columns, 1}, keys, s.D, of_queries, s.D, false);
                product(end, s.D, n, {weights, 1, columns}, g, s.D, of_values, s.D, true);
                product(end, s.D, n, {slopes, 1, columns}, query, s.D, of_keys, s.D, true);
                save(of_queries, scale, *grad_q, s, task, first, n);
            }
            save(of_keys, 1, *grad_k, s, task, 0, s.T), save(of_values, 1, *grad_v, s, task, 0, s.T);
        }
    }
}
}
