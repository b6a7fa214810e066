// A step of Muon (optim/muon.py): momentum, Newton-Schulz iterations and the update of a matrix, all by one core, while others
// compute other matrices. Most products of the iterations are symmetric: a half of them is computed. A part of training.cpp.
namespace {

struct MuonMatrix {  // (rows, columns), a row behind the other
    float* p;
    const float* grad;
    float* momentum;
    int64_t rows, columns;
};

struct MuonStep {
    float coefficients[3];  // of the iterations: a x + b x (x' x) + c x (x' x)^2
    int32_t iterations;
    float eps, momentum, lr, decay;
    int32_t cautious;  // only what the update shrinks decays
};

// (rows, columns) turned.
void turn(const float* from, int64_t rows, int64_t columns, float* to) {
    for (int64_t i = 0; i < rows; i += L)
        for (int64_t j = 0; j < columns; j += L) turn_square(from + i * columns + j, columns, to + j * rows + i, rows);
}

// C (S, S) = A (S, K) times B (K, S), which is symmetric: what lies on the diagonal and right of it, and the rest from there.
void symmetric_product(int64_t S, int64_t K, Left a, const float* b, float* c) {
    constexpr int64_t ROWS = 2 * TILE_ROWS;
    for (int64_t r = 0; r < S; r += ROWS) {
        const int64_t first = r / L * L;
        product(std::min(ROWS, S - r), S - first, K, {a.at + r * a.row, a.row, a.column}, b + first, S, c + r * S + first, S);
    }
    for (int64_t i = L; i < S; i += L)
        for (int64_t j = 0; j < i; j += L) turn_square(c + j * S + i, S, c + i * S + j, S);
}

// What a core needs for matrices of up to so many rows R and columns S, R >= S.
struct MuonCore {
    MuonCore(int64_t most, int64_t R, int64_t S) : x(most), next(most), gram(S * S), factor(S * S), whole(S * S), spare(S * S) {}
    Buffer<float> x, next, gram, factor, whole, spare;
};

// x (R, S) times the polynomials of x' x, iteration after iteration. Of a matrix twice as long as wide the
// polynomials are multiplied with each other, which are smaller, and then with x.
const float* iterate(const MuonCore& core, const MuonStep& step, int64_t R, int64_t S) {
    const float a = step.coefficients[0], b = step.coefficients[1], c = step.coefficients[2];
    float *x = core.x, *next = core.next, *gram = core.gram, *factor = core.factor, *whole = core.whole, *spare = core.spare;
    const bool is_long = R >= 2 * S;
    symmetric_product(S, R, {x, 1, S}, x, gram);
    for (int n = 0; n < step.iterations; n++) {
        symmetric_product(S, S, {gram, S, 1}, gram, factor);
#pragma omp simd
        for (int64_t i = 0; i < S * S; i++) factor[i] = c * factor[i] + b * gram[i];
        for (int64_t i = 0; i < S; i++) factor[i * S + i] += a;
        const bool last = n + 1 == step.iterations;
        if (!is_long) {
            product(R, S, S, {x, S, 1}, factor, S, next, S);
            std::swap(x, next);
            if (!last) symmetric_product(S, R, {x, 1, S}, x, gram);
            continue;
        }
        // By rounding, products of two different polynomials are not quite symmetric. A half of them would let that grow.
        if (n) product(S, S, S, {whole, S, 1}, factor, S, spare, S), std::swap(whole, spare);
        else std::copy(factor, factor + S * S, whole);
        if (!last) product(S, S, S, {factor, S, 1}, gram, S, spare, S), symmetric_product(S, S, {spare, S, 1}, factor, gram);
    }
    if (!is_long) return x;
    product(R, S, S, {x, S, 1}, whole, S, next, S);
    return next;
}

void muon_of(const MuonMatrix& m, const MuonStep& step, const MuonCore& core) {
    const int64_t n = m.rows * m.columns, R = std::max(m.rows, m.columns), S = std::min(m.rows, m.columns);
    const float fresh = 1 - step.momentum, *grad = m.grad;  // pointers read once: else loops would be of no vectors
    float *momentum = m.momentum, *p = m.p;
    const bool wide = m.rows < m.columns;
    float* update = wide ? core.next : core.x;
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < n; i++) {
        momentum[i] += fresh * (grad[i] - momentum[i]);
        update[i] = momentum[i] + fresh * (grad[i] - momentum[i]);  // ahead of it (Nesterov)
        squares += update[i] * update[i];
    }
    const float scale = 1 / (std::sqrt(squares) + step.eps);
    scaled(update, n, scale, update);
    if (wide) turn(update, m.rows, m.columns, core.x);
    const float* direction = iterate(core, step, R, S);
    if (wide) {
        float* to = direction == core.x ? core.next : core.x;
        turn(direction, R, S, to);
        direction = to;
    }
    const float kept = 1 - step.decay, length = step.lr * std::sqrt(std::max(1.0f, (float)m.rows / m.columns));
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        const bool stays = step.cautious && p[i] * direction[i] <= 0;
        p[i] = (stays ? p[i] : p[i] * kept) - length * direction[i];
    }
}

}  // namespace

extern "C" {

void muon_step(const MuonMatrix* all, int64_t n, const MuonStep* step) {
    int64_t most = 0, rows = 0, columns = 0;
    for (int64_t i = 0; i < n; i++) {
        most = std::max(most, all[i].rows * all[i].columns);
        rows = std::max(rows, std::max(all[i].rows, all[i].columns));
        columns = std::max(columns, std::min(all[i].rows, all[i].columns));
    }
#pragma omp parallel
    {
        const MuonCore core(most, rows, columns);
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < n; i++) muon_of(all[i], *step, core);
    }
}
}
