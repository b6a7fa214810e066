// Products of matrices of floats, as training needs them: rows of A, a number at a time, by rows of B, some vectors at a
// time. A may lie turned: neither a gradient of weights nor x^T x needs a copy of what it is made of. A part of products.cpp.
namespace {

constexpr int TILE_ROWS = 6, TILE_VECTORS = BYTES == 32 ? 2 : 4;  // of a tile: as many sums as registers hold

struct Left {  // the matrix A: element (i, k) at i * row + k * column
    const float* at;
    int64_t row, column;
};

// C (R, V vectors) = A (R, K) times B (K, V vectors), or added to C.
template <int R, int V> void sums(Left a, const float* b, int64_t b_row, float* c, int64_t c_row, int64_t K, bool add) {
    Floats total[R * V] = {};
    if (add)
#pragma GCC unroll 24
        for (int i = 0; i < R * V; i++) total[i] = read<Floats>(c + i / V * c_row + i % V * L);
    for (int64_t k = 0; k < K; k++) {
        Floats row[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) row[v] = read<Floats>(b + k * b_row + v * L);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            const Floats x = a.at[r * a.row + k * a.column] - Floats{};
#pragma GCC unroll 8
            for (int v = 0; v < V; v++) total[r * V + v] += x * row[v];
        }
    }
#pragma GCC unroll 24
    for (int i = 0; i < R * V; i++) std::memcpy(c + i / V * c_row + i % V * L, total + i, sizeof(Floats));
}

template <int R, int V, class... Rest> void tile_of(int64_t r, int64_t v, Rest... rest) {
    if (r < R) {
        if constexpr (R > 1) return tile_of<R - 1, V>(r, v, rest...);
    }
    if (v < V) {
        if constexpr (V > 1) return tile_of<R, V - 1>(r, v, rest...);
    }
    sums<R, V>(rest...);
}

// C (M, N) = A (M, K) times B (K, N), or added to C; N fills vectors.
void product(int64_t M, int64_t N, int64_t K, Left a, const float* b, int64_t b_row, float* c, int64_t c_row, bool add) {
    for (int64_t n = 0; n < N; n += TILE_VECTORS * L)
        for (int64_t m = 0; m < M; m += TILE_ROWS) {
            Left part = {a.at + m * a.row, a.row, a.column};
            tile_of<TILE_ROWS, TILE_VECTORS>(M - m, (N - n) / L, part, b + n, b_row, c + m * c_row + n, c_row, K, add);
        }
}

constexpr int64_t ROWS_OF_A_TASK = 96, COLUMNS_OF_A_TASK = TILE_VECTORS * L, DEPTH = 512;  // what a core adds up at a time

}  // namespace

extern "C" {

// The gradient (D, C) of a linear layer's weights: what its outputs get (R, D), turned, times its inputs (R, C).
void weight_gradient(const float* grad, const float* x, float* out, int64_t R, int64_t D, int64_t C) {
#pragma omp parallel for schedule(dynamic, 1) collapse(2)
    for (int64_t d = 0; d < D; d += ROWS_OF_A_TASK)
        for (int64_t c = 0; c < C; c += COLUMNS_OF_A_TASK)
            for (int64_t r = 0; r < R; r += DEPTH)
                product(std::min(ROWS_OF_A_TASK, D - d), std::min(COLUMNS_OF_A_TASK, C - c), std::min(DEPTH, R - r),
                        {grad + r * D + d, 1, D}, x + r * C + c, C, out + d * C + c, C, r > 0);
}

// Matrix by matrix: out (N, R, S) = a (N, R, K) times b (N, K, S). Those of a may lie turned: an element (r, k) is at
// r * row + k * column.
void products(const float* a, int64_t row, int64_t column, const float* b, float* out, int64_t N, int64_t R, int64_t K,
              int64_t S) {
#pragma omp parallel for schedule(dynamic, 1) collapse(2)
    for (int64_t n = 0; n < N; n++)
        for (int64_t r = 0; r < R; r += ROWS_OF_A_TASK)
            for (int64_t k = 0; k < K; k += DEPTH)
                product(std::min(ROWS_OF_A_TASK, R - r), S, std::min(DEPTH, K - k),
                        {a + n * R * K + r * row + k * column, row, column}, b + (n * K + k) * S, S,
                        out + (n * R + r) * S, S, k > 0);
}
}
