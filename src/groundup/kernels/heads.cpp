// The products that attention makes of one head, by vectors in floats; narrow_heads.cpp has tiles of bfloat16. What belongs to
// a key is a row of scores, weights and slopes, with a column for each of QUERIES queries. A part of training.cpp and
// training_bf16.cpp.
namespace {

constexpr int64_t QUERIES = 32;  // of a block: whole vectors and tiles

struct View {  // (B, T, H, D) of type 0 fp32 or 1 bf16: elements from a text, a token and a head to the next
    void* at;
    int64_t text, token, head;
};

struct Sizes {
    int64_t B, T, H, K, D;  // K heads of keys and values, each for H / K heads of queries
    int32_t type;
    uint32_t seed, other_seed, dropped;  // of 2^32 weights; 0: none
};

// n elements, times a factor.
template <class From, class To> void scaled(const From* from, int64_t n, float factor, To* to) {
#pragma omp simd
    for (int64_t d = 0; d < n; d++) to[d] = factor * from[d];
}

constexpr int64_t FETCHED = 8;  // rows of a head that are fetched ahead: they lie apart, which hardware does not foresee

void fetch_row(const View& view, int64_t place, const Sizes& s) {
    const int64_t size = s.type == 0 ? sizeof(float) : sizeof(Bf16Number);
    for (int64_t byte = 0; byte < s.D * size; byte += 64) __builtin_prefetch((const char*)view.at + place * size + byte);
}

// Where a head begins: the n-th of all texts, each of which has so many.
int64_t begin(const View& view, int64_t n, int64_t heads) { return n / heads * view.text + n % heads * view.head; }

// By vectors, as floats. Queries have been multiplied with one over the root of D.
class FloatHead {
  public:
    FloatHead(const Sizes& s, bool back)
        : width(s.D), scale(1), s(s), columns((s.T + QUERIES - 1) / QUERIES * QUERIES), root(1 / std::sqrt((float)s.D)),
          query_rows(s.T * s.D), key_rows(s.T * s.D), value_rows(s.T * s.D), turned(s.D * columns), some(QUERIES * s.D),
          grad_rows(back * s.T * s.D), grads_turned(back * s.D * columns), of_keys(back * s.T * s.D),
          of_values(back * s.T * s.D) {}

    void take_keys(const View& k, const View& v, int64_t n) {
        load(k, n, s.K, 1, key_rows), load(v, n, s.K, 1, value_rows);
    }

    void take_queries(const View& q, int64_t n) { load(q, n, s.H, root, query_rows), turn_all(query_rows, turned); }

    void take_grads(const View& grad, int64_t n) { load(grad, n, s.H, 1, grad_rows), turn_all(grad_rows, grads_turned); }

    // Of the keys before `end`, the products with the queries from `first` on.
    void scores(int64_t first, int64_t end, float* to) const { fit(key_rows, turned, first, end, to); }

    // Of their values, those with what the outputs get.
    void slopes(int64_t first, int64_t end, float* to) const { fit(value_rows, grads_turned, first, end, to); }

    // Of n queries, the sums of weighted values: rows of `width` numbers.
    const float* sums_of_values(int64_t n, int64_t end, const float* weights) const {
        product(n, s.D, end, {weights, 1, QUERIES}, value_rows, s.D, some, s.D);
        return some;
    }

    // What n queries get, one over the root of D too large; what keys and values get is added to theirs.
    const float* back(int64_t first, int64_t n, int64_t end, const float* weights, const float* slopes) const {
        const float *grads = grad_rows + first * s.D, *queries = query_rows + first * s.D;
        product(n, s.D, end, {slopes, 1, QUERIES}, key_rows, s.D, some, s.D);
        product(end, s.D, n, {weights, QUERIES, 1}, grads, s.D, of_values, s.D, of_values, s.D);
        product(end, s.D, n, {slopes, QUERIES, 1}, queries, s.D, of_keys, s.D, of_keys, s.D);
        return some;
    }

    const int64_t width;
    const float scale;  // of what `scores` gives and keys get

  private:
    void load(const View& view, int64_t n, int64_t heads, float factor, float* to) const {  // a row per token
        for (int64_t t = 0, place = begin(view, n, heads); t < s.T; t++, place += view.token, to += s.D) {
            fetch_row(view, place + FETCHED * view.token, s);
            if (s.type == 0) scaled((const float*)view.at + place, s.D, factor, to);
            else scaled((const Bf16Number*)view.at + place, s.D, factor, to);
        }
    }

    void turn_all(const float* from, float* to) const { turn_rows(from, s.D, s.T, s.D, to, columns, columns); }

    void fit(const float* rows, const float* to_what, int64_t first, int64_t end, float* to) const {
        product(end, QUERIES, s.D, {rows, s.D, 1}, to_what + first, columns, to, QUERIES);
    }

    const Sizes& s;
    const int64_t columns;
    const float root;
    Buffer<float> query_rows, key_rows, value_rows, turned, some, grad_rows, grads_turned;

  public:
    Buffer<float> of_keys, of_values;
};

}  // namespace
