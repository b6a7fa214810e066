// The products that attention makes of one head: by vectors in floats, or by tiles of bfloat16. What belongs to a
// key is a row of scores, weights and slopes, with a column for each of QUERIES queries. A part of training.cpp.
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

#if defined(WITH_BF16)

// By tiles, for which a Bf16Core has set a matrix unit up: weights and slopes are rounded for them. Zeros stand behind the last token
// and the last number of a head.
class Bf16Head {
  public:
    Bf16Head(const Sizes& s, bool back)
        : width(whole(s.D)), scale(1 / std::sqrt((float)s.D)), s(s), is_back(back), tokens(whole(s.T)), room(tokens * width / L / 2),
          keys(room), values(room), queries(room), turned(QUERIES * width), some(QUERIES * width), laid(tokens * QUERIES / L / 2),
          keys_across(back * room), queries_across(back * room), grads(back * room), grads_across(back * room),
          of_keys(back * tokens * width), of_values(back * tokens * width) {}

    void take_keys(const View& k, const View& v, int64_t n) {
        lay_head<true>(k, n, s.K, true, keys), lay_head<true>(v, n, s.K, is_back, values);
        if (is_back) lay_head<true>(k, n, s.K, false, keys_across);
    }

    void take_queries(const View& q, int64_t n) {
        lay_head<false>(q, n, s.H, true, queries);
        if (is_back) lay_head<false>(q, n, s.H, false, queries_across);
    }

    void take_grads(const View& grad, int64_t n) {
        lay_head<false>(grad, n, s.H, true, grads), lay_head<false>(grad, n, s.H, false, grads_across);
    }

    void scores(int64_t first, int64_t end, float* to) const { fit(keys, queries, first, end, to); }

    void slopes(int64_t first, int64_t end, float* to) const { fit(values, grads, first, end, to); }

    const float* sums_of_values(int64_t, int64_t end, const float* weights) const { return along_keys(values, end, weights); }

    const float* back(int64_t first, int64_t, int64_t end, const float* weights, const float* slopes) const {
        add_to_keys(weights, grads_across, first, end, of_values), add_to_keys(slopes, queries_across, first, end, of_keys);
        return along_keys(keys_across, end, slopes);
    }

    const int64_t width;
    const float scale;

  private:
    static int64_t whole(int64_t n) { return (n + SIDE - 1) / SIDE * SIDE; }

    // A head: ALONG, the numbers of a token are what is added up, else tokens are.
    template <bool OF_A> void lay_head(const View& view, int64_t n, int64_t heads, bool along, Ints* to) const {
        const Lying head = {(const Bf16Number*)view.at + begin(view, n, heads), s.T, s.D, 1, view.token};
        const int64_t panel = 2 * L * (along ? width : tokens) / SIDE;
        for (int64_t outer = 0; outer < (along ? s.T : s.D); outer += SIDE, to += panel) lay<OF_A>(head, along, outer, to);
    }

    void fit(const Ints* rows, const Ints* to_what, int64_t first, int64_t end, float* to) const {
        const int64_t gap = width / SIDE * L;
        for (int64_t j = 0; j < end; j += SIDE)
            multiply_tiles(rows + j / SIDE * 2 * gap, gap, to_what + first / SIDE * 2 * gap, gap, gap / L, to + j * QUERIES, QUERIES);
    }

    // The sums of a head's rows, weighted by a column for each query.
    const float* along_keys(const Ints* across, int64_t end, const float* weights) const {
        const int64_t gap = tokens / SIDE * L, steps = (end + SIDE - 1) / SIDE;
        lay<false>({weights, end, QUERIES, 0}, false, 0, laid);
        for (int64_t d = 0; d < width; d += SIDE)
            multiply_tiles(across + d / SIDE * 2 * gap, gap, laid, steps * L, steps, turned + d * QUERIES, QUERIES);
        for (int64_t d = 0; d < width; d += L)
            for (int64_t i = 0; i < QUERIES; i += L) turn_square(turned + d * QUERIES + i, QUERIES, some + i * width + d, width);
        return some;
    }

    // To each key its weights times the rows of a block of queries.
    void add_to_keys(const float* weights, const Ints* across, int64_t first, int64_t end, float* to) const {
        const int64_t gap = tokens / SIDE * L;
        for (int64_t j = 0; j < end; j += SIDE) {
            lay<true>({weights, end, QUERIES, 0}, true, j, laid);
            for (int64_t d = 0; d < width; d += SIDE)
                multiply_tiles(laid, L, across + d / SIDE * 2 * gap + first / SIDE * L, gap, 1, to + j * width + d, width, true);
        }
    }

    const Sizes& s;
    const bool is_back;
    const int64_t tokens, room;  // in vectors
    Buffer<Ints> keys, values, queries;
    Buffer<float> turned, some;
    Buffer<Ints> laid, keys_across, queries_across, grads, grads_across;

  public:
    Buffer<float> of_keys, of_values;
};

#endif

}  // namespace
