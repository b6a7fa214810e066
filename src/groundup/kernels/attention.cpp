// Causal attention of whole texts, forward and back, for training on a CPU: one head of one text is a task of a core. Going
// back it is one head of keys, with all heads of queries that share it: what they add to its gradient has one owner.
//
// Nothing of the size T x T leaves the caches: a block of queries meets the keys up to its own end, its scores become
// weights where they lie, and going back they are computed again from the logarithm of each query's sum. They lie turned, a
// row per key: what belongs to a query stays in its lane, and nothing is added up across lanes. A part of products.cpp.
namespace {

constexpr int64_t QUERIES = 32;  // of a block: whole vectors

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
    float factor(uint32_t row, uint32_t column) const { return mixed(row ^ column) < dropped ? 0.0f : kept; }  // no branch
    const uint32_t seed, dropped;
    const float kept;
    Buffer<uint32_t> columns;
};

// n elements, times a factor.
template <class From, class To> void scaled(const From* from, int64_t n, float factor, To* to) {
#pragma omp simd
    for (int64_t d = 0; d < n; d++) to[d] = factor * from[d];
}

// Where a head begins: the n-th of all texts, each of which has so many.
int64_t begin(const View& view, int64_t n, int64_t heads) { return n / heads * view.text + n % heads * view.head; }

// A head of a text as floats, a row per token, times a factor.
void load(const View& view, const Sizes& s, int64_t n, int64_t heads, float factor, float* to) {
    for (int64_t t = 0, place = begin(view, n, heads); t < s.T; t++, place += view.token, to += s.D)
        if (s.type == 0) scaled((const float*)view.at + place, s.D, factor, to);
        else scaled((const Bf16Number*)view.at + place, s.D, factor, to);
}

// The same turned, a column per token, with zeros behind the last.
void turn(const float* from, const Sizes& s, float* to, int64_t columns) {
    for (int64_t t = 0; t < columns; t += L)
        for (int64_t d = 0; d < s.D; d += L) {
            Ints part[L] = {};
            for (int64_t i = 0; i < std::min<int64_t>(L, s.T - t); i++) part[i] = read<Ints>(from + (t + i) * s.D + d);
            turn(part, std::make_index_sequence<L>{});
            for (int64_t i = 0; i < L; i++) std::memcpy(to + (d + i) * columns + t, part + i, sizeof(Ints));
        }
}

// n tokens from `first` on, times a factor.
void save(const float* from, float factor, const View& view, int64_t start, const Sizes& s, int64_t first, int64_t n) {
    for (int64_t t = 0, place = start + first * view.token; t < n; t++, place += view.token, from += s.D)
        if (s.type == 0) scaled(from, s.D, factor, (float*)view.at + place);
        else scaled(from, s.D, factor, (Bf16Number*)view.at + place);
}

// Of the row of key j, what belongs to queries before it, which do not see it.
void blank(float* row, int64_t j, int64_t first, float with) {
    const int32_t before = j - first;
#pragma omp simd
    for (int32_t i = 0; i < (int32_t)QUERIES; i++) row[i] = i < before ? with : row[i];
}

// Of all cores: y of every head, and the logarithm of each query's sum (B, H, T), from which the way back computes its
// weights again.
void attend_heads(const Sizes& s, const View& q, const View& k, const View& v, const View& y, float* log_sums) {
    const int64_t columns = (s.T + QUERIES - 1) / QUERIES * QUERIES;
    const float scale = 1 / std::sqrt((float)s.D);
    Buffer<float> rows(s.T * s.D), queries(s.D * columns), keys(s.T * s.D), values(s.T * s.D);
    Buffer<float> scores(columns * QUERIES), out(QUERIES * s.D);
    const Dropout dropout(s);
#pragma omp for schedule(dynamic, 1)
    for (int64_t head = 0; head < s.B * s.H; head++) {
        const int64_t shared = head / (s.H / s.K);
        load(q, s, head, s.H, scale, rows), turn(rows, s, queries, columns);
        load(k, s, shared, s.K, 1, keys), load(v, s, shared, s.K, 1, values);
        for (int64_t first = 0; first < s.T; first += QUERIES) {
            const int64_t n = std::min(QUERIES, s.T - first), end = first + n;
            float largest[QUERIES], total[QUERIES] = {};
            uint32_t numbers[QUERIES];
            std::fill(largest, largest + QUERIES, -INFINITY);
            for (int64_t i = 0; i < QUERIES; i++) numbers[i] = dropout.row(head * s.T + first + i);
            product(end, QUERIES, s.D, {keys, s.D, 1}, queries + first, columns, scores, QUERIES);
            for (int64_t j = 0; j < end; j++) {
                float* row = scores + j * QUERIES;
                if (j > first) blank(row, j, first, -INFINITY);
#pragma omp simd
                for (int64_t i = 0; i < QUERIES; i++) largest[i] = largest[i] < row[i] ? row[i] : largest[i];
            }
            for (int64_t j = 0; j < end; j++) {
                float* row = scores + j * QUERIES;
                const uint32_t column = dropout.columns[j];
#pragma omp simd
                for (int64_t i = 0; i < QUERIES; i++) {
                    const float weight = exponential(row[i] - largest[i]);
                    total[i] += weight, row[i] = weight * dropout.factor(numbers[i], column);
                }
                if (j > first) blank(row, j, first, 0);
            }
            product(n, s.D, end, {scores, 1, QUERIES}, values, s.D, out, s.D);
            for (int64_t i = 0; i < n; i++) {
                log_sums[head * s.T + first + i] = largest[i] + std::log(total[i]);
                save(out + i * s.D, 1 / total[i], y, begin(y, head, s.H), s, first + i, 1);
            }
        }
    }
}

// What queries, keys and values get, where y gets `grad`.
void attend_heads_back(const Sizes& s, const View& q, const View& k, const View& v, const View& y, const View& grad,
                       const float* log_sums, const View& grad_q, const View& grad_k, const View& grad_v) {
    const int64_t columns = (s.T + QUERIES - 1) / QUERIES * QUERIES, whole = s.T * s.D;
    const float scale = 1 / std::sqrt((float)s.D);
    Buffer<float> queries(whole), keys(whole), values(whole), outputs(whole), grads(whole);
    Buffer<float> of_queries(QUERIES * s.D), of_keys(whole), of_values(whole);
    Buffer<float> queries_turned(s.D * columns), grads_turned(s.D * columns);
    Buffer<float> weights(columns * QUERIES), slopes(columns * QUERIES);
    const Dropout dropout(s);
#pragma omp for schedule(dynamic, 1)
    for (int64_t shared = 0; shared < s.B * s.K; shared++) {
        load(v, s, shared, s.K, 1, values), load(k, s, shared, s.K, 1, keys);
        std::fill(of_keys + 0, of_keys + whole, 0.0f), std::fill(of_values + 0, of_values + whole, 0.0f);
        for (int64_t head = shared * s.H / s.K; head < (shared + 1) * s.H / s.K; head++) {
            load(q, s, head, s.H, scale, queries), turn(queries, s, queries_turned, columns);
            load(grad, s, head, s.H, 1, grads), turn(grads, s, grads_turned, columns);
            load(y, s, head, s.H, 1, outputs);
            const int64_t start = begin(grad_q, head, s.H);
            for (int64_t first = 0; first < s.T; first += QUERIES) {
                const int64_t n = std::min(QUERIES, s.T - first), end = first + n;
                const float *g = grads + first * s.D, *out = outputs + first * s.D, *query = queries + first * s.D;
                float log_sum[QUERIES] = {}, mean[QUERIES] = {};
                uint32_t numbers[QUERIES];
                for (int64_t i = 0; i < QUERIES; i++) numbers[i] = dropout.row(head * s.T + first + i);
                for (int64_t i = 0; i < n; i++)
                    log_sum[i] = log_sums[head * s.T + first + i], mean[i] = dot(g + i * s.D, out + i * s.D, s.D);
                product(end, QUERIES, s.D, {keys, s.D, 1}, queries_turned + first, columns, weights, QUERIES);
                product(end, QUERIES, s.D, {values, s.D, 1}, grads_turned + first, columns, slopes, QUERIES);
                for (int64_t j = 0; j < end; j++) {
                    float *weight = weights + j * QUERIES, *slope = slopes + j * QUERIES;
                    const uint32_t column = dropout.columns[j];
#pragma omp simd
                    for (int64_t i = 0; i < QUERIES; i++) {
                        const float whole = exponential(weight[i] - log_sum[i]);
                        const float factor = dropout.factor(numbers[i], column);
                        weight[i] = whole * factor;
                        slope[i] = whole * (slope[i] * factor - mean[i]);
                    }
                    if (j > first) blank(weight, j, first, 0), blank(slope, j, first, 0);
                }
                product(n, s.D, end, {slopes, 1, QUERIES}, keys, s.D, of_queries, s.D);
                product(end, s.D, n, {weights, QUERIES, 1}, g, s.D, of_values, s.D, of_values, s.D);
                product(end, s.D, n, {slopes, QUERIES, 1}, query, s.D, of_keys, s.D, of_keys, s.D);
                save(of_queries, scale, grad_q, start, s, first, n);
            }
        }
        save(of_keys, 1, grad_k, begin(grad_k, shared, s.K), s, 0, s.T);
        save(of_values, 1, grad_v, begin(grad_v, shared, s.K), s, 0, s.T);
    }
}

}  // namespace

extern "C" {

void attention_forward(const Sizes* sizes, const View* q, const View* k, const View* v, const View* y, float* log_sums) {
#pragma omp parallel
    attend_heads(*sizes, *q, *k, *v, *y, log_sums);
}

void attention_backward(const Sizes* sizes, const View* q, const View* k, const View* v, const View* y, const View* grad,
                        const float* log_sums, const View* grad_q, const View* grad_k, const View* grad_v) {
#pragma omp parallel
    attend_heads_back(*sizes, *q, *k, *v, *y, *grad, log_sums, *grad_q, *grad_k, *grad_v);
}
}
