// Products of matrices of floats as a block of training needs them (gpt_block.cpp), by product.cpp: what narrow.cpp has for
// bfloat16. All widths fill vectors. A part of training.cpp.
namespace {

constexpr int64_t ROWS_OF_A_BLOCK = 64;  // that a core takes at a time: whole tiles

struct FloatCore {  // room for what a core multiplies: some rows of A, or outputs turned, and columns of B
    explicit FloatCore(int64_t) : rows(std::max(ROWS_OF_A_BLOCK, OUTPUTS_OF_A_TASK) * APART), panels(PANELS * PANEL * DEPTH) {}
    Buffer<float> rows, panels;
};

// A matrix of weights laid down for products with some rows at a time.
class FloatWeights {
  public:
    FloatWeights(int64_t columns, int64_t inner) : columns(columns), inner(inner), laid((columns + PANEL - 1) / PANEL * PANEL * inner) {}

    // By all cores, none of which waits: W lies as (inner, columns) or, turned, as (columns, inner).
    void lay(const float* w, bool turned) {
#pragma omp for schedule(dynamic, 1) nowait
        for (int64_t n = 0; n < columns; n += PANEL)
            for (int64_t v = n; v < std::min(n + PANEL, columns); v += L) {
                float* to = laid + n * inner + (v - n);
                for (int64_t k = 0; k < inner; k += turned ? L : 1)
                    if (turned) turn_square(w + v * inner + k, inner, to + k * PANEL, PANEL);
                    else std::copy_n(w + k * columns + v, L, to + k * PANEL);
            }
    }

    // C (rows, columns) = A (rows, inner) times W, plus a bias or null.
    void multiply(FloatCore& core, const float* a, int64_t rows, const float* bias, float* c) const {
        for (int64_t k = 0; k < inner; k += DEPTH) {
            const int64_t depth = std::min(DEPTH, inner - k);
            for (int64_t i = 0; i < rows; i++) std::copy_n(a + i * inner + k, depth, core.rows + i * APART);
            for (int64_t n = 0; n < columns; n += PANEL)
                product(rows, std::min(PANEL, columns - n), depth, {core.rows, APART, 1}, laid + n * inner + k * PANEL, PANEL,
                        c + n, columns, k ? c + n : bias ? bias + n : nullptr, k ? columns : 0);
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
    FloatGradients(int64_t N, std::initializer_list<GradientOf> all, float* to) : N(N) {
        for (const GradientOf& one : all) {
            if (one.needed) parts[n] = one, outs[n++] = to;
            to += one.D * one.C;
        }
    }

    int64_t room() const { return 0; }

    // By all cores, which wait for each other first.
    void compute(FloatCore& core, Ints*) const {
#pragma omp barrier
        for (int i = 0; i < n; i++)
            gradient_of_weights((const float*)parts[i].grad, (const float*)parts[i].x, outs[i], N, parts[i].D, parts[i].C, core.rows,
                                core.panels);
    }

  private:
    const int64_t N;
    GradientOf parts[4];
    float* outs[4];
    int n = 0;
};

}  // namespace
