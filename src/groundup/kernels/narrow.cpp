// Products of matrices in bfloat16 by tiles (tiles.cpp), as training needs them: C = A B, where either may lie
// turned, so neither a gradient of weights nor one of inputs needs a copy. Floats are rounded as they are read.
//
// A tile has 16 rows of A, each with 32 numbers, or 32 rows of B with 16 numbers, of which pairs of rows lie side by side. B
// is laid down so once, by all cores; of A, a core lays down the rows that it multiplies. A part of training_bf16.cpp.
namespace {

constexpr int64_t DEPTH_OF_TILES = 1024;  // rows of a gradient's matrices that are laid down at a time
constexpr int64_t IN_CACHES = 3 << 18;    // weights that stay there beside all else

struct Lying {  // a matrix as it lies, row after row
    const void* at = nullptr;
    int64_t rows = 0, columns = 0;
    int32_t type = 0;         // 0 fp32, 1 bf16
    int64_t apart = columns;  // numbers from a row to the next
};

typedef Vector<uint16_t, SIDE> Narrow;

// SIDE numbers side by side, in bfloat16.
Narrow numbers(const Bf16Number* from) { return read<Narrow>(from); }
Narrow numbers(const float* from) { return (Narrow)_mm512_cvtne2ps_pbh(read<__m512>(from + L), read<__m512>(from)); }

// SIDE rows and columns of a matrix that ends within them, and zeros beyond.
template <class T> void copy_edge(const Lying& m, int64_t row, int64_t column, T* to) {
    const int64_t n = std::min(SIDE, m.columns - column);
    std::memset(to, 0, SIDE * SIDE * sizeof(T));
    for (int64_t i = 0; i < std::min(SIDE, m.rows - row); i++)
        std::memcpy(to + i * SIDE, (const T*)m.at + (row + i) * m.apart + column, n * sizeof(T));
}

// Of two rows, each number of the first beside that of the second: those of columns HALF * 16 and on.
template <int HALF, size_t... i> Ints side_by_side(Narrow a, Narrow b, std::index_sequence<i...>) {
    return (Ints)__builtin_shufflevector(a, b, HALF * 16 + i / 2 + i % 2 * SIDE...);
}

// Two tiles of SIDE outer by SIDE inner places, the second `gap` vectors behind the first. ALONG: a row has inner places. OF_A:
// rows of a tile are outer places; of B they are pairs of inner ones.
template <class T, bool ALONG, bool OF_A> void lay_tiles(const T* from, int64_t apart, Ints* to, int64_t gap) {
    Ints tiles[2][L];
#pragma GCC unroll 16
    for (int i = 0; i < L; i++)
        if constexpr (ALONG)
            for (int half = 0; half < 2; half++) tiles[half][i] = (Ints)numbers(from + (half * L + i) * apart);
        else {
            const auto row = numbers(from + 2 * i * apart), next = numbers(from + (2 * i + 1) * apart);
            tiles[0][i] = side_by_side<0>(row, next, std::make_index_sequence<SIDE>{});
            tiles[1][i] = side_by_side<1>(row, next, std::make_index_sequence<SIDE>{});
        }
    for (int half = 0; half < 2; half++) {
        if (ALONG != OF_A) turn(tiles[half], std::make_index_sequence<L>{});
#pragma GCC unroll 16
        for (int i = 0; i < L; i++) to[half * gap + i] = tiles[half][i];
    }
}

// SIDE outer places and all inner ones.
template <class T, bool ALONG, bool OF_A> void lay_as(const Lying& m, int64_t outer, Ints* to) {
    const int64_t steps = ((ALONG ? m.columns : m.rows) + SIDE - 1) / SIDE;
    for (int64_t s = 0; s < steps; s++, to += L) {
        const int64_t row = ALONG ? outer : s * SIDE, column = ALONG ? s * SIDE : outer;
        if (row + SIDE <= m.rows && column + SIDE <= m.columns) {
            lay_tiles<T, ALONG, OF_A>((const T*)m.at + row * m.apart + column, m.apart, to, steps * L);
            continue;
        }
        T edge[SIDE * SIDE];
        copy_edge(m, row, column, edge);
        lay_tiles<T, ALONG, OF_A>(edge, SIDE, to, steps * L);
    }
}

template <bool OF_A> void lay(const Lying& m, bool along, int64_t outer, Ints* to) {
    if (m.type) along ? lay_as<Bf16Number, true, OF_A>(m, outer, to) : lay_as<Bf16Number, false, OF_A>(m, outer, to);
    else along ? lay_as<float, true, OF_A>(m, outer, to) : lay_as<float, false, OF_A>(m, outer, to);
}

// SIDE rows of SIDE sums to where they belong in C, or added to what is there, as far as C reaches; a bias may come in between.
void write_sums(const float* sums, const float* bias, const Lying& c, int64_t row, int64_t column, bool add) {
    const uint32_t there = (uint32_t)((1ull << std::min(SIDE, c.columns - column)) - 1);
    const auto some = [there](const float* from) {
        return std::make_pair((Floats)_mm512_maskz_loadu_ps(there & 0xffff, from),
                              (Floats)_mm512_maskz_loadu_ps(there >> 16, from + L));
    };
    const auto [bias_1, bias_2] = bias ? some(bias + column) : std::make_pair(Floats{}, Floats{});
    for (int64_t i = 0; i < std::min(SIDE, c.rows - row); i++, sums += SIDE) {
        const int64_t place = (row + i) * c.apart + column;
        Floats first = read<Floats>(sums) + bias_1, second = read<Floats>(sums + L) + bias_2;
        if (c.type) {
            _mm512_mask_storeu_epi16((uint16_t*)c.at + place, there, (__m512i)_mm512_cvtne2ps_pbh(second, first));
            continue;
        }
        float* to = (float*)c.at + place;
        if (add) first += some(to).first, second += some(to).second;
        _mm512_mask_storeu_ps(to, there & 0xffff, first), _mm512_mask_storeu_ps(to + L, there >> 16, second);
    }
}

// SIDE rows of A by SIDE columns of B, which lie behind each other, to their place in C: at once, or by way of `sums`.
void multiply_into(const Ints* a, const Ints* b, int64_t steps, float* sums, const float* bias, const Lying& c, int64_t row,
                   int64_t column, bool add) {
    const bool at_once = !c.type && !bias && row + SIDE <= c.rows && column + SIDE <= c.columns;
    if (at_once) return multiply_tiles(a, steps * L, b, steps * L, steps, (float*)c.at + row * c.apart + column, c.apart, add);
    multiply_tiles(a, steps * L, b, steps * L, steps, sums, SIDE);
    write_sums(sums, bias, c, row, column, add);
}

// SIDE rows of C from row m on: those of A by all columns of B, which is laid down.
void multiply_rows(const Lying& a, bool a_along, int64_t m, const Ints* of_b, int64_t steps, Ints* of_a, float* sums,
                   const float* bias, const Lying& c, bool add) {
    lay<true>(a, a_along, m, of_a);
    for (int64_t n = 0; n < c.columns; n += SIDE)
        multiply_into(of_a, of_b + n / SIDE * 2 * steps * L, steps, sums, bias, c, m, n, add);
}

struct Bf16Core {  // what a core needs for it: room for ROWS_OF_A_BLOCK rows of up to so many numbers, for sums, and for B
    static constexpr int64_t INPUTS_OF_A_TASK = 256;
    explicit Bf16Core(int64_t widest)
        : rows((std::max(ROWS_OF_A_BLOCK / SIDE * widest, DEPTH_OF_TILES) + SIDE - 1) / SIDE * 2 * L), sums(SIDE * SIDE),
          panels(INPUTS_OF_A_TASK * DEPTH_OF_TILES / L / 2) {}
    const Unit unit;
    Buffer<Ints> rows;
    Buffer<float> sums;
    Buffer<Ints> panels;

    // As FloatCore's.
    void gradient(const Bf16Number* grad, int64_t grad_row, const Bf16Number* x, int64_t C, float* out, int64_t R, int64_t D,
                  int64_t n, bool add) const {
        for (int64_t r = 0; r < R; r += DEPTH_OF_TILES) {
            const int64_t depth = std::min(DEPTH_OF_TILES, R - r), steps = (depth + SIDE - 1) / SIDE;
            const Lying outputs = {grad + r * grad_row, depth, D, 1, grad_row}, inputs = {x + r * C, depth, n, 1, C};
            for (int64_t c = 0; c < n; c += SIDE) lay<false>(inputs, false, c, panels + c / SIDE * 2 * steps * L);
            for (int64_t d = 0; d < D; d += SIDE)
                multiply_rows(outputs, false, d, panels, steps, rows, sums, nullptr, {out, D, n, 0, C}, add || r > 0);
        }
    }
};

// A matrix of weights laid down for products with some rows at a time.
class Bf16Weights {
  public:
    Bf16Weights(int64_t columns, int64_t inner)
        : columns(columns), inner(inner), steps((inner + SIDE - 1) / SIDE), laid((columns + SIDE - 1) / SIDE * 2 * steps * L) {}

    // By all cores, none of which waits: W, floats, lies as (inner, columns) or, turned, as (columns, inner).
    void lay(const float* w, bool turned) {
        const Lying matrix = {w, turned ? columns : inner, turned ? inner : columns, 0};
#pragma omp for schedule(static) nowait
        for (int64_t n = 0; n < columns; n += SIDE) ::lay<false>(matrix, turned, n, laid + n / SIDE * 2 * steps * L);
    }

    // C (rows, columns), float or bfloat16, = A (rows, inner) times W, plus a bias or null.
    template <class C> void multiply(Bf16Core& core, const Bf16Number* a, int64_t rows, const float* bias, C* c) const {
        const Lying of_a = {a, rows, inner, 1}, of_c = {c, rows, columns, sizeof(C) == 2};
        const int64_t half = steps * L, panel = 2 * half;
        if (columns * inner <= IN_CACHES) {
            for (int64_t m = 0; m < rows; m += SIDE)
                multiply_rows(of_a, true, m, laid, steps, core.rows, core.sums, bias, of_c, false);
            return;
        }
        for (int64_t m = 0; m < rows; m += SIDE) ::lay<true>(of_a, true, m, core.rows + m / SIDE * panel);
        for (int64_t n = 0; n < columns; n += SIDE)  // what is fetched of W meets all rows
            for (int64_t m = 0; m < rows; m += SIDE)
                multiply_into(core.rows + m / SIDE * panel, laid + n / SIDE * panel, steps, core.sums, bias, of_c, m, n, false);
    }

  private:
    int64_t columns, inner, steps;
    Buffer<Ints> laid;
};

}  // namespace
