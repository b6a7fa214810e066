// Products of matrices of floats as a block of training needs them (gpt_block.cpp, gradients.cpp), by product.cpp: what narrow.cpp
// has for bfloat16. All widths fill vectors. A part of training.cpp and training_bf16.cpp.
namespace {

constexpr int64_t ROWS_OF_A_BLOCK = 64;  // that a core takes at a time: whole tiles

struct FloatCore {  // room for what a core multiplies: some rows of A, or outputs in groups, and columns of B
    static constexpr int64_t INPUTS_OF_A_TASK = PANELS_OF_A_TASK * PANEL;
    explicit FloatCore(int64_t)
        : rows(std::max(ROWS_OF_A_BLOCK * APART, GROUPS_ROOM)), panels(INPUTS_OF_A_TASK * DEPTH) {}
    Buffer<float> rows, panels;

    // The gradient (D, C) of a linear layer's weights, or n <= INPUTS_OF_A_TASK columns of it: what D outputs get, R rows
    // `grad_row` apart, turned, times its inputs, R rows C apart; or that is added. Parts of both are laid down before: where
    // they lie each row may be in another page of memory.
    void gradient(const float* grad, int64_t grad_row, const float* x, int64_t C, float* out, int64_t R, int64_t D, int64_t n,
                  bool add) const {
        for (int64_t r = 0; r < R; r += DEPTH) {
            const int64_t depth = std::min(DEPTH, R - r);
            lay_panels(x + r * C, C, depth, n, panels);
            for (int64_t d = 0; d < D; d += OUTPUTS_AT_A_TIME) {
                const int64_t outputs = std::min(OUTPUTS_AT_A_TIME, D - d);
                lay_groups(grad + r * grad_row + d, grad_row, depth, outputs, rows);
                for (int64_t nth = 0; nth < panels_of(n); nth++) {
                    const auto [first, columns] = panel_of(n, nth);
                    for (int64_t i = 0; i < outputs; i += GROUP) {
                        float* to = out + (d + i) * C + first;
                        product(std::min(GROUP, outputs - i), columns, depth, {rows + i / GROUP * GROUP_ROOM, 1, GROUP},
                                panels + first * DEPTH, columns, to, C, add || r ? to : nullptr, C);
                    }
                }
            }
        }
    }
};

// A matrix of weights laid down for products with some rows at a time.
class FloatWeights {
  public:
    FloatWeights(int64_t columns, int64_t inner) : columns(columns), inner(inner), laid(columns * inner) {}

    // By all cores, none of which waits: W lies as (inner, columns) or, turned, as (columns, inner).
    void lay(const float* w, bool turned) {
#pragma omp for schedule(static) nowait
        for (int64_t nth = 0; nth < panels_of(columns); nth++) {
            const Panel panel = panel_of(columns, nth);
            for (int64_t v = panel.first; v < panel.first + panel.columns; v += L) {
                float* to = laid + panel.first * inner + (v - panel.first);
                for (int64_t k = 0; k < inner; k += turned ? L : 1)
                    if (turned) turn_square(w + v * inner + k, inner, to + k * panel.columns, panel.columns);
                    else std::memcpy(to + k * panel.columns, w + k * columns + v, sizeof(Floats));
            }
        }
    }

    // C (rows, columns) = A (rows, inner) times W, plus a bias or null.
    void multiply(FloatCore& core, const float* a, int64_t rows, const float* bias, float* c) const {
        const bool apart = inner > DEPTH;
        for (int64_t k = 0; k < inner; k += DEPTH) {
            const int64_t depth = std::min(DEPTH, inner - k);
            for (int64_t i = 0; i < rows && apart; i++) std::copy_n(a + i * inner + k, depth, core.rows + i * APART);
            const Left left = apart ? Left{core.rows, APART, 1} : Left{a, inner, 1};
            for (int64_t nth = 0; nth < panels_of(columns); nth++) {
                const auto [n, some] = panel_of(columns, nth);
                product(rows, some, depth, left, laid + n * inner + k * some, some, c + n, columns,
                        k ? c + n : bias ? bias + n : nullptr, k ? columns : 0);
            }
        }
    }

  private:
    int64_t columns, inner;
    Buffer<float> laid;
};

}  // namespace
