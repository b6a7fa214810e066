// Products of matrices of floats, as training needs them: rows of A, a number at a time, by rows of B, some vectors at a
// time. A may lie turned, so that a gradient of weights needs no copy of what it is made of. A part of block.cpp.
namespace {

constexpr int TILE_ROWS = 6, TILE_VECTORS = BYTES == 32 ? 2 : 4;  // of a tile: as many sums as registers hold

struct Left {  // the matrix A: element (i, k) at i * row + k * column
    const float* at;
    int64_t row, column;
};

// C (R, V vectors) = A (R, K) times B (K, V vectors), or added to C.
template <int R, int V> void sums(Left a, const float* b, int64_t b_row, float* c, int64_t c_row, int64_t K, bool add) {
    Floats total[R * V] = {};
    for (int i = 0; add && i < R * V; i++) total[i] = read<Floats>(c + i / V * c_row + i % V * L);
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

constexpr int64_t GRADIENT_ROWS = 96, GRADIENT_COLUMNS = TILE_VECTORS * L, DEPTH = 512;  // what a core adds up at a time

}  // namespace

extern "C" {

// The gradient (D, C) of a linear layer's weights: what its outputs get (R, D), turned, times its inputs (R, C).
void weight_gradient(const float* grad, const float* x, float* out, int64_t R, int64_t D, int64_t C) {
#pragma omp parallel for schedule(dynamic, 1) collapse(2)
    for (int64_t d = 0; d < D; d += GRADIENT_ROWS)
        for (int64_t c = 0; c < C; c += GRADIENT_COLUMNS)
            for (int64_t r = 0; r < R; r += DEPTH)
                product(std::min(GRADIENT_ROWS, D - d), std::min(GRADIENT_COLUMNS, C - c), std::min(DEPTH, R - r),
                        {grad + r * D + d, 1, D}, x + r * C + c, C, out + d * C + c, C, r > 0);
}
}
