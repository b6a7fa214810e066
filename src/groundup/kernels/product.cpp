// Products of matrices of floats, as training needs them: rows of A, a number at a time, by rows of B, some vectors at a
// time. A may lie turned, so nothing as large as a matrix is copied. A part of training.cpp.
namespace {

constexpr int TILE_ROWS = BYTES == 64 ? 12 : BYTES == 32 ? 4 : 6;  // as many sums as registers hold
constexpr int TILE_VECTORS = BYTES == 64 ? 2 : BYTES == 32 ? 3 : 4;

struct Left {  // the matrix A: element (i, k) at i * row + k * column
    const float* at;
    int64_t row, column;
};

// C (R, V vectors) = A (R, K) times B (K, V vectors), added to what `start` has, if there is one. IN_ROWS: the numbers of a
// row of A lie side by side.
template <int R, int V, bool IN_ROWS>
void sums(Left a, const float* b, int64_t b_row, float* c, int64_t c_row, int64_t K, const float* start, int64_t start_row) {
    Floats total[R * V] = {};
    if (start)
#pragma GCC unroll 24
        for (int i = 0; i < R * V; i++) total[i] = read<Floats>(start + i / V * start_row + i % V * L);
#pragma GCC unroll 2
    for (int64_t k = 0; k < K; k++) {
        Floats row[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) row[v] = read<Floats>(b + k * b_row + v * L);
#pragma GCC unroll 12
        for (int r = 0; r < R; r++) {
            const Floats x = a.at[r * a.row + k * (IN_ROWS ? 1 : a.column)] - Floats{};
#pragma GCC unroll 8
            for (int v = 0; v < V; v++) total[r * V + v] += x * row[v];
        }
    }
#pragma GCC unroll 24
    for (int i = 0; i < R * V; i++) std::memcpy(c + i / V * c_row + i % V * L, total + i, sizeof(Floats));
}

// The same of any size: as many of its rows and vectors at a time as a tile has, then a third of the rows, then one.
template <int R, int V, bool IN_ROWS>
void tiles(int64_t M, int64_t N, int64_t K, Left a, const float* b, int64_t b_row, float* c, int64_t c_row,
           const float* start, int64_t start_row) {
    const int64_t whole = N / (V * L) * V * L;
    for (int64_t n = 0; n < whole; n += V * L) {
        int64_t m = 0;
        const auto rows = [&](auto some) {
            constexpr int SOME = decltype(some)::value;
            for (; m + SOME <= M; m += SOME)
                sums<SOME, V, IN_ROWS>({a.at + m * a.row, a.row, a.column}, b + n, b_row, c + m * c_row + n, c_row, K,
                                       start ? start + m * start_row + n : nullptr, start_row);
        };
        rows(std::integral_constant<int, R>()), rows(std::integral_constant<int, R / 3>());
        rows(std::integral_constant<int, 1>());
    }
    if constexpr (V > 1)
        if (whole < N)
            tiles<R, 1, IN_ROWS>(M, N - whole, K, a, b + whole, b_row, c + whole, c_row, start ? start + whole : nullptr,
                                 start_row);
}

// C (M, N) = A (M, K) times B (K, N), added to what `start` has, which may be C; N fills vectors.
void product(int64_t M, int64_t N, int64_t K, Left a, const float* b, int64_t b_row, float* c, int64_t c_row,
             const float* start = nullptr, int64_t start_row = 0) {
    const auto compute = a.column == 1 ? tiles<TILE_ROWS, TILE_VECTORS, true> : tiles<TILE_ROWS, TILE_VECTORS, false>;
    compute(M, N, K, a, b, b_row, c, c_row, start, start_row);
}

constexpr int64_t OUTPUTS_OF_A_TASK = 96, DEPTH = 512;  // what a core adds up at a time
constexpr int64_t PANEL = TILE_VECTORS * L;             // columns of B whose numbers lie together
constexpr int64_t PANELS = 2;                           // laid at a time: a row of both is read at once
constexpr int64_t APART = DEPTH + 64 / sizeof(float);  // a cache line more: else rows compete for the same places of a cache

// L rows of L numbers, `row` apart, turned.
void turn_square(const float* from, int64_t row, float* to, int64_t to_row) {
    Ints part[L];
    for (int64_t i = 0; i < L; i++) part[i] = read<Ints>(from + i * row);
    turn(part, std::make_index_sequence<L>{});
    for (int64_t i = 0; i < L; i++) std::memcpy(to + i * to_row, part + i, sizeof(Ints));
}

// Some columns of some rows, `row` apart, as rows that are `to_row` apart; whole vectors of them, with zeros behind the last.
void turn_rows(const float* from, int64_t row, int64_t rows, int64_t columns, float* to, int64_t to_row, int64_t whole) {
    for (int64_t k = 0; k < whole; k += L)
        for (int64_t j = 0; j < columns; j += L) {
            Ints some[L] = {};
            for (int64_t i = 0; i < std::min<int64_t>(L, rows - k); i++)
                some[i] = (Ints)part<Fp32>(from + (k + i) * row + j, columns - j);
            turn(some, std::make_index_sequence<L>{});
            for (int64_t i = 0; i < L; i++) std::memcpy(to + (j + i) * to_row + k, some + i, sizeof(Ints));
        }
}

// Some columns of some rows, `row` apart, as panels of DEPTH rows.
void lay_panels(const float* from, int64_t row, int64_t rows, int64_t columns, float* to) {
    for (int64_t k = 0; k < rows; k++, from += row) {
        for (int64_t n = 0; n < columns; n += 16) __builtin_prefetch(from + 8 * row + n);
        for (int64_t first = 0; first < columns; first += PANEL)
            for (int64_t n = first; n < std::min(first + PANEL, columns); n += L) {
                const auto some = read<Floats>(from + n);
                std::memcpy(to + first * DEPTH + k * PANEL + n - first, &some, sizeof some);
            }
    }
}

// Of all cores, none of which waits: the gradient (D, C) of a linear layer's weights, what its outputs get (R, D), turned,
// times its inputs (R, C). `turned` and `panels` are room for parts of both: read where they lie, each row of x would be in
// another page of memory.
void gradient_of_weights(const float* grad, const float* x, float* out, int64_t R, int64_t D, int64_t C, float* turned,
                         float* panels) {
#pragma omp for schedule(dynamic, 1) nowait
    for (int64_t d = 0; d < D; d += OUTPUTS_OF_A_TASK)
        for (int64_t r = 0; r < R; r += DEPTH) {
            const int64_t outputs = std::min(OUTPUTS_OF_A_TASK, D - d), rows = std::min(DEPTH, R - r);
            turn_rows(grad + r * D + d, D, rows, outputs, turned, APART, rows);
            for (int64_t first = 0; first < C; first += PANELS * PANEL) {
                const int64_t end = std::min(first + PANELS * PANEL, C);
                lay_panels(x + r * C + first, C, rows, end - first, panels);
                for (int64_t n = first; n < end; n += PANEL) {
                    float* to = out + d * C + n;
                    product(outputs, std::min(PANEL, end - n), rows, {turned, APART, 1}, panels + (n - first) * DEPTH, PANEL, to,
                            C, r ? to : nullptr, C);
                }
            }
        }
}

}  // namespace

extern "C" void weight_gradient(const float* grad, const float* x, float* out, int64_t R, int64_t D, int64_t C) {
#pragma omp parallel
    {
        Buffer<float> turned(OUTPUTS_OF_A_TASK * APART), panels(PANELS * PANEL * DEPTH);
        gradient_of_weights(grad, x, out, R, D, C, turned, panels);
    }
}
