// Products of matrices of floats as a block of training needs them (gpt_block.cpp), by product.cpp: what narrow.cpp has for
// bfloat16. All widths fill vectors. A part of training.cpp and training_bf16.cpp.
namespace {

constexpr int64_t ROWS_OF_A_BLOCK = 64;  // that a core takes at a time: whole tiles

struct FloatCore {  // room for what a core multiplies: some rows of A, or outputs in groups, and columns of B
    explicit FloatCore(int64_t) : rows(std::max(ROWS_OF_A_BLOCK * APART, GROUPS_ROOM)), panels(PANELS * PANEL * DEPTH) {}
    Buffer<float> rows, panels;
};

// A matrix of weights laid down for products with some rows at a time.
class FloatWeights {
  public:
    FloatWeights(int64_t columns, int64_t inner) : columns(columns), inner(inner), laid(columns * inner) {}

    // By all cores, none of which waits: W lies as (inner, columns) or, turned, as (columns, inner).
    void lay(const float* w, bool turned) {
#pragma omp for schedule(dynamic, 1) nowait
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

struct GradientOf {  // a matrix of weights (D, C): what its outputs get (N, D), turned, times its inputs (N, C)
    const void* grad;
    int64_t D;
    const void* x;
    int64_t C;
    bool needed;
};

// The gradients of some matrices, which lie one behind the other.
class FloatGradients {
  public:
    FloatGradients(int64_t N, std::initializer_list<GradientOf> all, float* to, bool added = false) : N(N), added(added) {
        for (const GradientOf& one : all) {
            if (one.needed) parts[n] = one, outs[n++] = to;
            to += one.D * one.C;
        }
    }

    int64_t room() const { return 0; }

    // By all cores, none of which waits, once all of those is there. They begin with the last, whose tasks are the largest.
    void compute(FloatCore& core, Ints*) const {
        for (int i = n; i-- > 0;)
            gradient_of_weights((const float*)parts[i].grad, (const float*)parts[i].x, outs[i], N, parts[i].D, parts[i].C, added,
                                core.rows, core.panels);
    }

  private:
    const int64_t N;
    const bool added;  // to what is there
    GradientOf parts[4];
    float* outs[4];
    int n = 0;
};

}  // namespace
