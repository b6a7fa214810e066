// What heads.cpp has for floats, for bfloat16 (narrow.cpp). A part of training_bf16.cpp.
namespace {

// By tiles, for which a Unit has set a matrix unit up: weights and slopes are rounded for them. Zeros stand behind the last token
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

}  // namespace
