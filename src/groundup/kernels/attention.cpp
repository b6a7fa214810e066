// Causal attention of whole texts, forward and back, for training on a CPU: one head of one text is a task of a core. Going
// back it is one head of keys, with all heads of queries that share it: what they add to its gradient has one owner.
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
    int64_t B, T, H, K, D;  // K heads of keys and values, each for H / K heads of queries
    int32_t type;
    uint32_t seed, other_seed, dropped;  // of 2^32 weights; 0: none
};

uint32_t mixed(uint32_t x) {  // each bit of x turns half of the others (Wellons 2018, "lowbias32")
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

// What a weight is multiplied with: 0 where it is dropped, else 1 over the share that is kept. Each has a number of its own,
// made of its row's and its column's, so that the way back finds the same ones without having kept any. dropout.cpp has
// rows of other numbers.
struct Dropout {
    Dropout(uint32_t seed, uint32_t other_seed, uint32_t dropped, int64_t width)
        : seed(seed), dropped(dropped), kept(1 / (1 - dropped / 4294967296.0f)), columns(width) {
        for (int64_t j = 0; j < width; j++) columns[j] = mixed((uint32_t)j ^ other_seed);
    }
    explicit Dropout(const Sizes& s) : Dropout(s.seed, s.other_seed, s.dropped, s.T) {}
    uint32_t row(int64_t i) const { return mixed(mixed((uint32_t)i) ^ seed); }
    float factor(uint32_t row, int64_t j) const { return mixed(row ^ columns[j]) < dropped ? 0.0f : kept; }  // no branch
    const uint32_t seed, dropped;
    const float kept;
    Buffer<uint32_t> columns;
};

// n elements, times a factor.
void widen(const void* from, int32_t type, int64_t first, int64_t n, float factor, float* to) {
    for (int64_t d = 0; d < n; d++)
        to[d] = factor * (type == 0 ? ((const float*)from)[first + d] : (float)((const Bf16Number*)from)[first + d]);
}

// Where a head begins: the n-th of all texts, each of which has so many.
int64_t begin(const View& view, int64_t n, int64_t heads) { return n / heads * view.text + n % heads * view.head; }

// A head of a text as floats, a row per token, times a factor.
void load(const View& view, const Sizes& s, int64_t n, int64_t heads, float factor, float* to) {
    const int64_t start = begin(view, n, heads);
    for (int64_t t = 0; t < s.T; t++) widen(view.at, s.type, start + t * view.token, s.D, factor, to + t * s.D);
}

// The same turned, a column per token, with zeros behind the last.
void turn(const float* from, const Sizes& s, float* to, int64_t columns) {
    for (int64_t t = 0; t < columns; t += L)
        for (int64_t d = 0; d < s.D; d++)
            for (int64_t i = t; i < t + L; i++) to[d * columns + i] = i < s.T ? from[i * s.D + d] : 0.0f;
}

// n tokens from `first` on, times a factor.
void save(const float* from, float factor, const View& view, int64_t start, const Sizes& s, int64_t first, int64_t n) {
    for (int64_t t = 0; t < n; t++)
        for (int64_t d = 0; d < s.D; d++) {
            const int64_t place = start + (first + t) * view.token + d;
            const float x = factor * from[t * s.D + d];
            if (s.type == 0) ((float*)view.at)[place] = x;
            else ((Bf16Number*)view.at)[place] = x;
        }
}

// The scores of row i become its weights, and what weights get becomes what scores get; both end with zeros.
void slope_of(float* weight, float* slope, const float* grad, const float* out, float log_sum, int64_t i, int64_t wide,
              int64_t D, const Dropout& dropout, uint32_t number) {
    const float mean = dot(grad, out, D);
#pragma omp simd
    for (int64_t j = 0; j <= i; j++) {
        const float whole = exponential(weight[j] - log_sum), factor = dropout.factor(number, j);
        weight[j] = whole * factor;
        slope[j] = whole * (slope[j] * factor - mean);
    }
    std::fill(weight + i + 1, weight + wide, 0.0f), std::fill(slope + i + 1, slope + wide, 0.0f);
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
        for (int64_t head = 0; head < s.B * s.H; head++) {
            const int64_t shared = head / (s.H / s.K);
            load(*q, s, head, s.H, scale, queries), load(*k, s, shared, s.K, 1, values), turn(values, s, keys, columns);
            load(*v, s, shared, s.K, 1, values);
            for (int64_t first = 0; first < s.T; first += QUERIES) {
                const int64_t n = std::min(QUERIES, s.T - first), end = first + n, wide = (end + L - 1) / L * L;
                product(n, wide, s.D, {queries + first * s.D, s.D, 1}, keys, columns, scores, columns, false);
                for (int64_t i = 0; i < n; i++) {
                    float *row = scores + i * columns, largest = row[0], sum = 0;
                    const int64_t seen = first + i + 1;
                    const uint32_t number = dropout.row(head * s.T + first + i);
#pragma omp simd reduction(max : largest)
                    for (int64_t j = 0; j < seen; j++) largest = std::max(largest, row[j]);
#pragma omp simd reduction(+ : sum)
                    for (int64_t j = 0; j < seen; j++) {
                        const float weight = exponential(row[j] - largest);
                        sum += weight, row[j] = weight * dropout.factor(number, j);
                    }
                    std::fill(row + seen, row + wide, 0.0f);
                    total[i] = sum, log_sums[head * s.T + first + i] = largest + std::log(sum);
                }
                product(n, s.D, end, {scores, columns, 1}, values, s.D, out, s.D, false);
                for (int64_t i = 0; i < n; i++) save(out + i * s.D, 1 / total[i], *y, begin(*y, head, s.H), s, first + i, 1);
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
        for (int64_t shared = 0; shared < s.B * s.K; shared++) {
            load(*v, s, shared, s.K, 1, keys), turn(keys, s, values_turned, columns);
            load(*k, s, shared, s.K, 1, keys), turn(keys, s, keys_turned, columns);
            std::fill(of_keys + 0, of_keys + whole, 0.0f), std::fill(of_values + 0, of_values + whole, 0.0f);
            for (int64_t head = shared * s.H / s.K; head < (shared + 1) * s.H / s.K; head++) {
                load(*q, s, head, s.H, scale, queries), load(*y, s, head, s.H, 1, outputs);
                load(*grad, s, head, s.H, 1, grads);
                const int64_t start = begin(*grad_q, head, s.H);
                for (int64_t first = 0; first < s.T; first += QUERIES) {
                    const int64_t n = std::min(QUERIES, s.T - first), end = first + n, wide = (end + L - 1) / L * L;
                    const float *g = grads + first * s.D, *out = outputs + first * s.D, *query = queries + first * s.D;
                    product(n, wide, s.D, {query, s.D, 1}, keys_turned, columns, weights, columns, false);
                    product(n, wide, s.D, {g, s.D, 1}, values_turned, columns, slopes, columns, false);
                    for (int64_t i = 0; i < n; i++)
                        slope_of(weights + i * columns, slopes + i * columns, g + i * s.D, out + i * s.D,
                                 log_sums[head * s.T + first + i], first + i, wide, s.D, dropout,
                                 dropout.row(head * s.T + first + i));
                    product(n, s.D, end, {slopes, columns, 1}, keys, s.D, of_queries, s.D, false);
                    product(end, s.D, n, {weights, 1, columns}, g, s.D, of_values, s.D, true);
                    product(end, s.D, n, {slopes, 1, columns}, query, s.D, of_keys, s.D, true);
                    save(of_queries, scale, *grad_q, start, s, first, n);
                }
            }
            save(of_keys, 1, *grad_k, begin(*grad_k, shared, s.K), s, 0, s.T);
            save(of_values, 1, *grad_v, begin(*grad_v, shared, s.K), s, 0, s.T);
        }
    }
}
}
