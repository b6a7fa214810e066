// A block of GPT-2 in training, forward and back, in bfloat16 (narrow.cpp) or in float32 (wide.cpp); queries
// and keys may be rotated. Some rows (tokens) at a time go through all that treats them alone, while they are in a core's
// caches: norm and product before attention; behind it product, norm, MLP and what is added to the stream. Cores wait for each
// other around attention only, and one that is late has less to do. A part of training.cpp.
namespace {

struct InFloats {
    typedef float Number;
    typedef FloatCore Core;
    typedef FloatHead Head;
    typedef FloatWeights Weights;
    typedef FloatGradients Gradients;
    static constexpr int32_t TYPE = 0;  // as attention.cpp counts them
};

#if defined(WITH_BF16)
struct InBf16 {
    typedef Bf16Number Number;
    typedef Bf16Core Core;
    typedef Bf16Head Head;
    typedef Bf16Weights Weights;
    typedef Bf16Gradients Gradients;
    static constexpr int32_t TYPE = 1;
};
#endif

struct BlockSizes {
    int64_t B, T, C, H;
    uint32_t dropped[3][3];  // two seeds and a bound: of attention's weights, of what it adds, of what the MLP adds
    float eps;
    const float *cosines, *sines;  // (T, D), by which queries and keys are rotated; null where they are not
};

struct BlockWeights {  // shifts and biases may be null
    const float *gain_1, *shift_1, *w_qkv, *b_qkv, *w_proj, *b_proj, *gain_2, *shift_2, *w_fc, *b_fc, *w_out, *b_out;
};

// Rooms in one piece, one behind the other, each at the border of a cache line. From null on they tell how much all take.
class Rooms {
  public:
    explicit Rooms(void* first) : next((char*)first) {}
    template <class T> void give(T*& to, int64_t n) {
        to = (T*)next;
        next += (n * sizeof(T) + 63) / 64 * 64;
    }
    int64_t taken() const { return (int64_t)next; }

  private:
    char* next;
};

// What the way back needs, a row per token, or per head and token. What norms and GELU give it computes again, while it reads
// what they were given: to read that back from memory would take longer.
template <class Number> struct BlockKept {
    BlockKept(const BlockSizes& s, void* room) : all(room) {
        const int64_t N = s.B * s.T;
        all.give(qkv, N * 3 * s.C), all.give(y, N * s.C), all.give(h, N * 4 * s.C), all.give(between, N * s.C);
        all.give(log_sums, N * s.H), all.give(moments_1, N), all.give(moments_2, N);
    }
    Rooms all;
    Number *qkv, *y, *h;
    float *between, *log_sums;
    Moments *moments_1, *moments_2;
};

// What it has in its hands beside: products' inputs, and the gradients of their outputs and of the stream between.
template <class Number> struct BlockPassing {
    BlockPassing(int64_t N, int64_t C)
        : a(N * C), b(N * C), g(4 * N * C), out(N * C), h(4 * N * C), proj(N * C), y(N * C), qkv(3 * N * C), between(N * C) {}
    Buffer<Number> a, b, g, out, h, proj, y, qkv;
    Buffer<float> between;
};

// Where the gradients of vectors begin, in units of C.
enum { GAIN_1, SHIFT_1, GAIN_2, SHIFT_2, B_PROJ, B_OUT, B_QKV, B_FC = 9, VECTORS = 13 };

Sizes attention_sizes(const BlockSizes& s, int32_t type) {
    return {s.B, s.T, s.H, s.H, s.C / s.H, type, s.dropped[0][0], s.dropped[0][1], s.dropped[0][2]};
}

// The heads of the nth of `parts` matrices that lie side by side.
template <class T> View heads(T* at, const BlockSizes& s, int64_t nth, int64_t parts) {
    return {at + nth * s.C, s.T * parts * s.C, parts * s.C, s.C / s.H};
}

// Queries and keys of n rows by the angles of their tokens; `sign` -1 turns back.
template <class T> void turn_heads(const BlockSizes& s, int64_t row, int64_t n, float sign, T* qkv) {
    const int64_t D = s.C / s.H;
    for (int64_t i = row; s.cosines && i < row + n; i++)
        for (T *head = qkv + i * 3 * s.C, *end = head + 2 * s.C; head < end; head += D)
            turn_pairs([head](int64_t d) -> float { return head[d]; }, s.cosines + i % s.T * D, s.sines + i % s.T * D, sign, 1,
                       head, D / 2);
}

Dropout dropout_of(const BlockSizes& s, int which) {
    return {s.dropped[which][0], s.dropped[which][1], s.dropped[which][2], s.C};
}

template <class Way>
void forward(const BlockSizes& s, const BlockWeights& w, const float* stream, void* room, float* out) {
    typedef typename Way::Number Number;
    const BlockKept<Number> kept(s, room);
    const int64_t C = s.C, N = s.B * s.T;
    const Sizes of_attention = attention_sizes(s, Way::TYPE);
    typename Way::Weights of_qkv(3 * C, C), of_proj(C, C), of_fc(4 * C, C), of_out(C, 4 * C);
#pragma omp parallel
    {
        typename Way::Core core(4 * C);
        Buffer<float> added(ROWS_OF_A_BLOCK * C);
        Buffer<Number> normed(ROWS_OF_A_BLOCK * C), g(ROWS_OF_A_BLOCK * 4 * C);
        const Dropout drop_attention = dropout_of(s, 1), drop_mlp = dropout_of(s, 2);
        of_qkv.lay(w.w_qkv, true), of_proj.lay(w.w_proj, true), of_fc.lay(w.w_fc, true), of_out.lay(w.w_out, true);
#pragma omp barrier
#pragma omp for schedule(dynamic, 1)
        for (int64_t r = 0; r < N; r += ROWS_OF_A_BLOCK) {
            const int64_t n = std::min(ROWS_OF_A_BLOCK, N - r);
            for (int64_t i = r; i < r + n; i++)
                kept.moments_1[i] = normalize({w.gain_1, w.shift_1, s.eps}, stream + i * C, normed + (i - r) * C, C);
            of_qkv.multiply(core, normed, n, w.b_qkv, kept.qkv + r * 3 * C);
            turn_heads(s, r, n, 1, kept.qkv);
        }
        attend_heads(typename Way::Head(of_attention, false), of_attention, heads(kept.qkv, s, 0, 3), heads(kept.qkv, s, 1, 3),
                     heads(kept.qkv, s, 2, 3), heads(kept.y, s, 0, 1), kept.log_sums);
#pragma omp for schedule(dynamic, 1)
        for (int64_t r = 0; r < N; r += ROWS_OF_A_BLOCK) {
            const int64_t n = std::min(ROWS_OF_A_BLOCK, N - r);
            Number* h = kept.h + r * 4 * C;
            of_proj.multiply(core, kept.y + r * C, n, w.b_proj, added + 0);
            for (int64_t i = r; i < r + n; i++) {
                float* between = kept.between + i * C;
                drop_row(added + (i - r) * C, i, drop_attention, C, stream + i * C, between);
                kept.moments_2[i] = normalize({w.gain_2, w.shift_2, s.eps}, between, normed + (i - r) * C, C);
            }
            of_fc.multiply(core, normed, n, w.b_fc, h);
#pragma omp simd
            for (int64_t j = 0; j < n * 4 * C; j++) g[j] = h[j] * sigmoid(h[j]);
            of_out.multiply(core, g, n, w.b_out, added + 0);
            for (int64_t i = r; i < r + n; i++)
                drop_row(added + (i - r) * C, i, drop_mlp, C, kept.between + i * C, out + i * C);
        }
    }
}

// Of the matrices c_attn, c_proj, c_fc, c_proj those get their gradient whose bit of `needed` is set.
template <class Way>
void backward(const BlockSizes& s, const BlockWeights& w, const float* stream, void* room, const float* grad_out,
              float* grad_stream, float* grad_weights, int needed) {
    typedef typename Way::Number Number;
    const BlockKept<Number> kept(s, room);
    const int64_t C = s.C, N = s.B * s.T, parts = (N + ROWS_OF_A_BLOCK - 1) / ROWS_OF_A_BLOCK;
    const BlockPassing<Number> grads(N, C);
    const Sizes of_attention = attention_sizes(s, Way::TYPE);
    typename Way::Weights of_qkv(C, 3 * C), of_proj(C, C), of_fc(C, 4 * C), of_out(4 * C, C);
    const typename Way::Gradients of_matrices(N, {{grads.qkv, 3 * C, grads.a, C, (needed & 1) != 0},
                                        {grads.proj, C, kept.y, C, (needed & 2) != 0},
                                        {grads.h, 4 * C, grads.b, C, (needed & 4) != 0},
                                        {grads.out, C, grads.g, 4 * C, (needed & 8) != 0}}, grad_weights + VECTORS * C);
    Buffer<Ints> laid(of_matrices.room());
    Buffer<float> sums(parts * VECTORS * C);  // of vectors, each part of the rows' own: so their order is always the same
    const auto part_of = [&](int64_t row, int64_t vector) { return sums + (row / ROWS_OF_A_BLOCK * VECTORS + vector) * C; };
#pragma omp parallel
    {
        typename Way::Core core(4 * C);
        Buffer<float> wide(ROWS_OF_A_BLOCK * 4 * C), narrow(ROWS_OF_A_BLOCK * C);
        const Dropout drop_attention = dropout_of(s, 1), drop_mlp = dropout_of(s, 2);
        of_qkv.lay(w.w_qkv, false), of_proj.lay(w.w_proj, false), of_fc.lay(w.w_fc, false), of_out.lay(w.w_out, false);
#pragma omp barrier
#pragma omp for schedule(dynamic, 1)
        for (int64_t r = 0; r < N; r += ROWS_OF_A_BLOCK) {
            const int64_t n = std::min(ROWS_OF_A_BLOCK, N - r);
            Number *out = grads.out + r * C, *h = grads.h + r * 4 * C, *proj = grads.proj + r * C, *g = grads.g + r * 4 * C;
            const Number* kept_h = kept.h + r * 4 * C;
            std::fill(part_of(r, 0), part_of(r, VECTORS), 0.0f);
            for (int64_t i = 0; i < n; i++)
                drop_row(grad_out + (r + i) * C, r + i, drop_mlp, C, nullptr, out + i * C);
            of_out.multiply(core, out, n, nullptr, wide + 0);
#pragma omp simd
            for (int64_t j = 0; j < n * 4 * C; j++) {
                const float x = kept_h[j], share = sigmoid(x);
                g[j] = x * share, h[j] = wide[j] * gelu_slope(x, share);
            }
            of_fc.multiply(core, h, n, nullptr, narrow + 0);
            for (int64_t i = 0; i < n; i++) {
                float* between = grads.between + (r + i) * C;
                norm_back(narrow + i * C, kept.between + (r + i) * C, w.gain_2, w.shift_2, kept.moments_2[r + i], C,
                          grad_out + (r + i) * C, between, part_of(r, GAIN_2), part_of(r, SHIFT_2), grads.b + (r + i) * C);
                drop_row(between, r + i, drop_attention, C, nullptr, proj + i * C);
            }
            of_proj.multiply(core, proj, n, nullptr, grads.y + r * C);
            if (w.b_out) add_rows(out, n, C, part_of(r, B_OUT));
            if (w.b_fc) add_rows(h, n, 4 * C, part_of(r, B_FC));
            if (w.b_proj) add_rows(proj, n, C, part_of(r, B_PROJ));
        }
        attend_heads_back(typename Way::Head(of_attention, true), of_attention, heads(kept.qkv, s, 0, 3),
                          heads(kept.qkv, s, 1, 3), heads(kept.qkv, s, 2, 3), heads(kept.y, s, 0, 1), heads(grads.y + 0, s, 0, 1),
                          kept.log_sums, heads(grads.qkv + 0, s, 0, 3), heads(grads.qkv + 0, s, 1, 3), heads(grads.qkv + 0, s, 2, 3));
#pragma omp for schedule(dynamic, 1) nowait
        for (int64_t r = 0; r < N; r += ROWS_OF_A_BLOCK) {
            const int64_t n = std::min(ROWS_OF_A_BLOCK, N - r);
            turn_heads(s, r, n, -1, grads.qkv + 0);
            of_qkv.multiply(core, grads.qkv + r * 3 * C, n, nullptr, narrow + 0);
            for (int64_t i = r; i < r + n; i++)
                norm_back(narrow + (i - r) * C, stream + i * C, w.gain_1, w.shift_1, kept.moments_1[i], C, grads.between + i * C,
                          grad_stream + i * C, part_of(r, GAIN_1), part_of(r, SHIFT_1), grads.a + i * C);
            if (w.b_qkv) add_rows(grads.qkv + r * 3 * C, n, 3 * C, part_of(r, B_QKV));
        }
        of_matrices.compute(core, laid);
#pragma omp barrier
#pragma omp for
        for (int64_t j = 0; j < VECTORS * C; j += L) {
            Floats total = {};
            for (int64_t i = 0; i < parts; i++) total += read<Floats>(sums + i * VECTORS * C + j);
            std::memcpy(grad_weights + j, &total, sizeof total);
        }
    }
}

}  // namespace

extern "C" {

// type: 0 fp32, 1 bf16. Bytes that `forward` keeps in a room for the way back.
int64_t gpt_block_room(int type, const BlockSizes* sizes) {
    return type ? BlockKept<Bf16Number>(*sizes, nullptr).all.taken() : BlockKept<float>(*sizes, nullptr).all.taken();
}

void gpt_block_forward(int type, const BlockSizes* sizes, const BlockWeights* weights, const float* stream, void* room,
                       float* out) {
#if defined(WITH_BF16)
    if (type) return forward<InBf16>(*sizes, *weights, stream, room, out);
#endif
    forward<InFloats>(*sizes, *weights, stream, room, out);
}

// grad_weights: of the vectors, then of the matrices.
void gpt_block_backward(int type, const BlockSizes* sizes, const BlockWeights* weights, const float* stream, void* room,
                        const float* grad_out, float* grad_stream, float* grad_weights, int needed) {
#if defined(WITH_BF16)
    if (type) return backward<InBf16>(*sizes, *weights, stream, room, grad_out, grad_stream, grad_weights, needed);
#endif
    backward<InFloats>(*sizes, *weights, stream, room, grad_out, grad_stream, grad_weights, needed);
}

int has_bf16() {
#if defined(WITH_BF16)
    return 1;
#else
    return 0;
#endif
}
}
