// Causal attention of whole texts, forward and back, for training on a CPU: one head of one text is a task of a core. Going
// back it is one head of keys, with all heads of queries that share it: what they add to its gradient has one owner.
//
// Nothing of the size T x T leaves the caches: a block of queries meets the keys up to its own end, its scores become weights
// where they lie, and going back they are computed again from the logarithm of each query's sum. They lie turned, a row per
// key: what belongs to a query stays in its lane, and nothing is added up across lanes. A part of training.cpp and
// training_bf16.cpp.
namespace {

INLINE uint32_t mixed(uint32_t x) {  // each bit of x turns half of the others (Wellons 2018, "lowbias32")
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
    INLINE float factor(uint32_t row, uint32_t column) const {  // read on one side only, `kept` would keep loops from vectors
        return (mixed(row ^ column) < dropped ? 0.0f : 1.0f) * kept;
    }
    const uint32_t seed, dropped;
    const float kept;
    Buffer<uint32_t> columns;
};

// n tokens from `first` on, times a factor.
INLINE void save(const float* from, int64_t width, float factor, const View& view, int64_t start, const Sizes& s,
                 int64_t first, int64_t n) {
    for (int64_t t = 0, place = start + first * view.token; t < n; t++, place += view.token, from += width)
        if (s.type == 0) scaled(from, s.D, factor, (float*)view.at + place);
        else scaled(from, s.D, factor, (Bf16Number*)view.at + place);
}

// The dot product of two tokens of a head.
float dot_of(const View& a, int64_t at_a, const View& b, int64_t at_b, const Sizes& s) {
    if (s.type == 0) return dot((const float*)a.at + at_a, (const float*)b.at + at_b, s.D);
    return dot((const Bf16Number*)a.at + at_a, (const Bf16Number*)b.at + at_b, s.D);
}

// Of the row of key j, what belongs to queries before it, which do not see it.
void blank(float* row, int64_t j, int64_t first, float with) {
    const int32_t before = j - first;
#pragma omp simd
    for (int32_t i = 0; i < (int32_t)QUERIES; i++) row[i] = i < before ? with : row[i];
}

struct Queries {  // of a block
    Queries(const Dropout& dropout, int64_t head, const Sizes& s, int64_t first)
        : dropout(dropout), first(first), n(std::min(QUERIES, s.T - first)), end(first + n), row(head * s.T + first) {
        for (int64_t i = 0; i < QUERIES; i++) numbers[i] = dropout.row(row + i);
    }

    // Scores, still to be multiplied with `scale`, become weights, whose sums are `total`.
    template <bool DROPS> void weigh(float* scores, float scale, float* largest, float* total) const {
        std::fill(largest, largest + QUERIES, -INFINITY), std::fill(total, total + QUERIES, 0.0f);
        for (int64_t j = 0; j < end; j++) {
            float* row = scores + j * QUERIES;
            if (j > first) blank(row, j, first, -INFINITY);
#pragma omp simd
            for (int64_t i = 0; i < QUERIES; i++) largest[i] = largest[i] < row[i] ? row[i] : largest[i];
        }
        for (int64_t j = 0; j < end; j++) {
            float* row = scores + j * QUERIES;
#pragma omp simd
            for (int64_t i = 0; i < QUERIES; i++) {
                const float weight = exponential((row[i] - largest[i]) * scale);
                total[i] += weight, row[i] = weight * factor<DROPS>(i, j);
            }
            if (j > first) blank(row, j, first, 0);
        }
    }

    // The same going back, from the logarithms of the sums; what weights get becomes what scores get.
    template <bool DROPS> void weigh_back(float* scores, float* slopes, float scale, const float* log_sum, const float* mean) const {
        for (int64_t j = 0; j < end; j++) {
            float *weight = scores + j * QUERIES, *slope = slopes + j * QUERIES;
#pragma omp simd
            for (int64_t i = 0; i < QUERIES; i++) {
                const float whole = exponential(weight[i] * scale - log_sum[i]), kept = factor<DROPS>(i, j);
                weight[i] = whole * kept, slope[i] = whole * (slope[i] * kept - mean[i]);
            }
            if (j > first) blank(weight, j, first, 0), blank(slope, j, first, 0);
        }
    }

    template <bool DROPS> INLINE float factor(int64_t i, int64_t j) const {
        return DROPS ? dropout.factor(numbers[i], dropout.columns[j]) : 1.0f;
    }

    const Dropout& dropout;
    const int64_t first, n, end, row;
    uint32_t numbers[QUERIES];
};

// Of all cores: y of every head, and the logarithm of each query's sum (B, H, T), from which the way back computes its
// weights again.
void attend_heads(Way::Head& head, const Sizes& s, const View& q, const View& k, const View& v, const View& y, float* log_sums,
                  Shares& shares) {
    Buffer<float> scores((s.T + QUERIES) * QUERIES);
    const Dropout dropout(s);
    shares.each(s.B * s.H, [&](int64_t nth) {
        head.take_queries(q, nth), head.take_keys(k, v, nth / (s.H / s.K));
        for (int64_t first = 0; first < s.T; first += QUERIES) {
            const Queries block(dropout, nth, s, first);
            float largest[QUERIES], total[QUERIES];
            head.scores(first, block.end, scores);
            if (dropout.dropped) block.weigh<true>(scores, head.scale, largest, total);
            else block.weigh<false>(scores, head.scale, largest, total);
            const float* out = head.sums_of_values(block.n, block.end, scores);
            for (int64_t i = 0; i < block.n; i++) {
                log_sums[block.row + i] = largest[i] * head.scale + std::log(total[i]);
                save(out + i * head.width, head.width, 1 / total[i], y, begin(y, nth, s.H), s, first + i, 1);
            }
        }
    });
}

// What queries, keys and values get, where y gets `grad`.
void attend_heads_back(Way::Head& head, const Sizes& s, const View& q, const View& k, const View& v, const View& y,
                       const View& grad, const float* log_sums, const View& grad_q, const View& grad_k, const View& grad_v,
                       Shares& shares) {
    const int64_t numbers = s.T * head.width;
    const float scale = 1 / std::sqrt((float)s.D);
    Buffer<float> weights((s.T + QUERIES) * QUERIES), slopes((s.T + QUERIES) * QUERIES);
    const Dropout dropout(s);
    shares.each(s.B * s.K, [&](int64_t shared) {
        head.take_keys(k, v, shared);
        std::fill(head.of_keys + 0, head.of_keys + numbers, 0.0f), std::fill(head.of_values + 0, head.of_values + numbers, 0.0f);
        for (int64_t nth = shared * s.H / s.K; nth < (shared + 1) * s.H / s.K; nth++) {
            head.take_queries(q, nth), head.take_grads(grad, nth);
            const int64_t of_grad = begin(grad, nth, s.H), of_y = begin(y, nth, s.H);
            for (int64_t first = 0; first < s.T; first += QUERIES) {
                const Queries block(dropout, nth, s, first);
                float log_sum[QUERIES] = {}, mean[QUERIES] = {};
                for (int64_t i = 0; i < block.n; i++) {
                    fetch_row(y, of_y + (first + i + FETCHED) * y.token, s);
                    log_sum[i] = log_sums[block.row + i];
                    mean[i] = dot_of(grad, of_grad + (first + i) * grad.token, y, of_y + (first + i) * y.token, s);
                }
                head.scores(first, block.end, weights), head.slopes(first, block.end, slopes);
                if (dropout.dropped) block.weigh_back<true>(weights, slopes, head.scale, log_sum, mean);
                else block.weigh_back<false>(weights, slopes, head.scale, log_sum, mean);
                const float* of_queries = head.back(first, block.n, block.end, weights, slopes);
                save(of_queries, head.width, scale, grad_q, begin(grad_q, nth, s.H), s, first, block.n);
            }
        }
        save(head.of_keys, head.width, head.scale, grad_k, begin(grad_k, shared, s.K), s, 0, s.T);
        save(head.of_values, head.width, 1, grad_v, begin(grad_v, shared, s.K), s, 0, s.T);
    });
}

}  // namespace

extern "C" {

void IN_TYPE(attention_forward)(const Sizes* sizes, const View* q, const View* k, const View* v, const View* y, float* log_sums) {
    Shares shares;
#pragma omp parallel
    {
        const Unit unit;
        Way::Head head(*sizes, false);
        attend_heads(head, *sizes, *q, *k, *v, *y, log_sums, shares);
    }
}

void IN_TYPE(attention_backward)(const Sizes* sizes, const View* q, const View* k, const View* v, const View* y, const View* grad,
                                 const float* log_sums, const View* grad_q, const View* grad_k, const View* grad_v) {
    Shares shares;
#pragma omp parallel
    {
        const Unit unit;
        Way::Head head(*sizes, true);
        attend_heads_back(head, *sizes, *q, *k, *v, *y, *grad, log_sums, *grad_q, *grad_k, *grad_v, shares);
    }
}
}
