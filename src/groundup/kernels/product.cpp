// Products of matrices of floats, as training needs them: rows of A, a number at a time, by rows of B, some vectors at a
// time. A may lie turned, so nothing as large as a matrix is copied. A part of training.cpp and training_bf16.cpp.
namespace {

constexpr int TILE_VECTORS = BYTES == 64 ? 2 : BYTES == 32 ? 3 : 4;
constexpr int TILE_SUMS = BYTES == 32 ? 12 : 24;  // vectors, as many as registers hold
constexpr int TILE_ROWS = TILE_SUMS / TILE_VECTORS;
constexpr int64_t PANEL = TILE_VECTORS * L;  // columns of B that are multiplied at a time

struct Left {  // the matrix A: element (i, k) at i * row + k * column, one of which is 1
    const float* at;
    int64_t row, column;
};

struct Panel {
    int64_t first, columns;
};

int64_t panels_of(int64_t columns) { return (columns + PANEL - 1) / PANEL; }

// The nth of so many columns. Where a single vector were left for the last, which does not keep a core busy, it gets the one
// before, too.
Panel panel_of(int64_t columns, int64_t nth) {
    const bool alone = TILE_VECTORS > 2 && columns > PANEL && columns % PANEL == L;
    const auto begin = [=](int64_t n) { return std::min(n * PANEL, columns) - (alone && n + 1 == panels_of(columns) ? L : 0); };
    return {begin(nth), begin(nth + 1) - begin(nth)};
}

const float NOTHING[PANEL] = {};  // where sums start: asked whether they start, GCC would keep them in memory, too

// C (R, V vectors) = A (R, K) times B (K, V vectors), added to what `start` has. IN_ROWS: the numbers of a row of A lie side
// by side, else those of a column do: with twelve rows apart in both, registers would not hold all that is added. K is not 0.
template <int R, int V, bool IN_ROWS>
void sums(Left a, const float* b, int64_t b_row, float* c, int64_t c_row, int64_t K, const float* start, int64_t start_row) {
    if (K <= 0) __builtin_unreachable();
    Floats total[R * V];
#pragma GCC unroll 24
    for (int i = 0; i < R * V; i++) total[i] = read<Floats>(start + i / V * start_row + i % V * L);
#pragma GCC unroll 2
    for (int64_t k = 0; k < K; k++) {
        Floats row[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) row[v] = read<Floats>(b + k * b_row + v * L);
#pragma GCC unroll 12
        for (int r = 0; r < R; r++) {
            const Floats x = a.at[IN_ROWS ? r * a.row + k : r + k * a.column] - Floats{};
#pragma GCC unroll 8
            for (int v = 0; v < V; v++) total[r * V + v] += x * row[v];
        }
    }
#pragma GCC unroll 24
    for (int i = 0; i < R * V; i++) std::memcpy(c + i / V * c_row + i % V * L, total + i, sizeof(Floats));
}

// The same of M rows and some vectors, V or fewer: as many rows at a time as there are sums for, then a third of them, then one.
template <int V, bool IN_ROWS>
void rows_of_tiles(int64_t M, int64_t vectors, int64_t K, Left a, const float* b, int64_t b_row, float* c, int64_t c_row,
                   const float* start, int64_t start_row) {
    if constexpr (V > 1)
        if (vectors < V) return rows_of_tiles<V - 1, IN_ROWS>(M, vectors, K, a, b, b_row, c, c_row, start, start_row);
    int64_t m = 0;
    const auto rows = [&](auto some) {
        constexpr int R = decltype(some)::value;
        for (; m + R <= M; m += R)
            sums<R, V, IN_ROWS>({a.at + m * a.row, a.row, a.column}, b, b_row, c + m * c_row, c_row, K, start + m * start_row,
                                start_row);
    };
    constexpr int MOST = std::min(TILE_SUMS / V, 12);
    rows(std::integral_constant<int, MOST>()), rows(std::integral_constant<int, MOST / 3>());
    rows(std::integral_constant<int, 1>());
}

// C (M, N) = A (M, K) times B (K, N), added to what `start` has, which may be C; N fills vectors.
void product(int64_t M, int64_t N, int64_t K, Left a, const float* b, int64_t b_row, float* c, int64_t c_row,
             const float* start = nullptr, int64_t start_row = 0) {
    const auto compute = a.column == 1 ? rows_of_tiles<TILE_VECTORS, true> : rows_of_tiles<TILE_VECTORS, false>;
    for (int64_t nth = 0; nth < panels_of(N); nth++) {
        const auto [n, columns] = panel_of(N, nth);
        compute(M, columns / L, K, a, b + n, b_row, c + n, c_row, start ? start + n : NOTHING, start ? start_row : 0);
    }
}

// What a core adds up at a time of a gradient of weights.
constexpr int64_t OUTPUTS_AT_A_TIME = 48, PANELS_OF_A_TASK = 6, DEPTH = 512;
constexpr int64_t GROUP = 12;  // columns of A whose numbers lie together: whole tiles
constexpr int64_t PANELS = 2;  // of B, laid at a time: a row of both is read at once
constexpr int64_t LINE = 64 / sizeof(float);  // a cache line more: else rows, or groups, compete for the same places of a cache
constexpr int64_t APART = DEPTH + LINE, GROUP_ROOM = GROUP * DEPTH + LINE;
constexpr int64_t GROUPS_ROOM = (OUTPUTS_AT_A_TIME + GROUP - 1) / GROUP * GROUP_ROOM;

// L rows of L numbers, `row` apart, turned.
void turn_square(const float* from, int64_t row, float* to, int64_t to_row) {
    Ints part[L];
#pragma GCC unroll 16
    for (int64_t i = 0; i < L; i++) part[i] = read<Ints>(from + i * row);
    turn(part, std::make_index_sequence<L>{});
#pragma GCC unroll 16
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
#pragma GCC unroll 16
            for (int64_t i = 0; i < L; i++) std::memcpy(to + (j + i) * to_row + k, some + i, sizeof(Ints));
        }
}

// Some columns of some rows, `row` apart, as panels of DEPTH rows.
void lay_panels(const float* from, int64_t row, int64_t rows, int64_t columns, float* to) {
    for (int64_t nth = 0; nth < panels_of(columns); nth += PANELS) {
        const int64_t n = std::min(PANELS, panels_of(columns) - nth);
        Panel some[PANELS] = {};
        for (int64_t p = 0; p < n; p++) some[p] = panel_of(columns, nth + p);
        for (int64_t k = 0; k < rows; k++)
            for (int64_t p = 0; p < n; p++) {
                const float* part = from + k * row + some[p].first;
                float* at = to + some[p].first * DEPTH + k * some[p].columns;
                __builtin_prefetch(part + 8 * row), __builtin_prefetch(part + 8 * row + LINE);
                for (int64_t j = 0; j < some[p].columns; j += L) {
                    const auto vector = read<Floats>(part + j);
                    std::memcpy(at + j, &vector, sizeof vector);
                }
            }
    }
}

// The same as groups.
void lay_groups(const float* from, int64_t row, int64_t rows, int64_t columns, float* to) {
    for (int64_t k = 0; k < rows; k++, from += row) {
        for (int64_t n = 0; n < columns; n += LINE) __builtin_prefetch(from + 8 * row + n);
        float* at = to + k * GROUP;
        int64_t n = 0;
        for (; n + GROUP <= columns; n += GROUP, at += GROUP_ROOM) std::memcpy(at, from + n, GROUP * sizeof(float));
        for (; n < columns; n++) *at++ = from[n];
    }
}

}  // namespace
