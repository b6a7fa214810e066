// The way back of some blocks of GPT-2 (gpt_block.cpp). A part of training.cpp and training_bf16.cpp.
namespace {

// What it has in its hands beside: products' inputs, and the gradients of their outputs and of the stream between.
struct BlockPassing {
    BlockPassing(int64_t N, int64_t C)
        : a(N * C), b(N * C), g(4 * N * C), out(N * C), h(4 * N * C), proj(N * C), y(N * C), qkv(3 * N * C), between(N * C) {}
    Buffer<Way::Number> a, b, g, out, h, proj, y, qkv;
    Buffer<float> between;
};

// Where the gradients of vectors begin, in units of C.
enum { GAIN_1, SHIFT_1, GAIN_2, SHIFT_2, B_PROJ, B_OUT, B_QKV, B_FC = 9, VECTORS = 13 };

// From the last block to the first: what its stream gets is what the block before gets for what it gave, and lies in `grad` as
// soon as `grad_out`, which may be `grad`, was read. Of a block's matrices c_attn, c_proj, c_fc, c_proj those get
// their gradient whose bit of its `needed` is set.
void backward(int64_t n_blocks, const BlockSizes* sizes, const BlockWeights* weights, const float* const* streams,
              void* const* rooms, const float* grad_out, float* grad, float* const* grad_weights, const int* needed) {
    typedef Way::Number Number;
    const int64_t C = sizes->C, N = sizes->B * sizes->T, parts = (N + ROWS_OF_A_BLOCK - 1) / ROWS_OF_A_BLOCK;
    const BlockPassing grads(N, C);
    LaidWeights laid(C, false);
    Shares shares;
    const auto matrices_of = [&](int64_t nth) {
        const BlockKept kept(sizes[nth], rooms[nth]);
        const auto is_needed = [=](int matrix) { return (needed[nth] >> matrix & 1) != 0; };
        return Gradients(N, {{grads.qkv, 3 * C, grads.a, C, is_needed(0)},
                             {grads.proj, C, kept.y, C, is_needed(1)},
                             {grads.h, 4 * C, grads.b, C, is_needed(2)},
                             {grads.out, C, grads.g, 4 * C, is_needed(3)}}, grad_weights[nth] + VECTORS * C, true);
    };
    Buffer<float> room(matrices_of(0).room());
    Buffer<float> sums(parts * VECTORS * C);  // of vectors, each part of the rows' own: so their order is always the same
    const auto part_of = [&](int64_t row, int64_t vector) { return sums + (row / ROWS_OF_A_BLOCK * VECTORS + vector) * C; };
#pragma omp parallel
    {
        Way::Core core(4 * C);
        Buffer<float> wide(ROWS_OF_A_BLOCK * 4 * C), narrow(ROWS_OF_A_BLOCK * C);
        for (int64_t nth = n_blocks; nth-- > 0; grad_out = grad) {
            const BlockSizes& s = sizes[nth];
            const BlockWeights& w = weights[nth];
            const BlockKept kept(s, rooms[nth]);
            const Sizes of_attention = attention_sizes(s);
            const Dropout drop_attention = dropout_of(s, 1), drop_mlp = dropout_of(s, 2);
            const float* stream = streams[nth];
            laid.lay_rest(w), laid.qkv.lay(w.w_qkv, false);
#pragma omp barrier
            if (nth + 1 < n_blocks) matrices_of(nth + 1).add_halves(room);
            shares.each(parts, [&](int64_t part) {
                const int64_t r = part * ROWS_OF_A_BLOCK, n = std::min(ROWS_OF_A_BLOCK, N - r);
                Number *out = grads.out + r * C, *h = grads.h + r * 4 * C, *proj = grads.proj + r * C, *g = grads.g + r * 4 * C;
                const Number* kept_h = kept.h + r * 4 * C;
                std::fill(part_of(r, 0), part_of(r, VECTORS), 0.0f);
                for (int64_t i = 0; i < n; i++) drop_row(grad_out + (r + i) * C, r + i, drop_mlp, C, nullptr, out + i * C);
                laid.out.multiply(core, out, n, nullptr, wide + 0);
#pragma omp simd
                for (int64_t j = 0; j < n * 4 * C; j++) {
                    const float x = kept_h[j], share = sigmoid(x);
                    g[j] = x * share, h[j] = wide[j] * gelu_slope(x, share);
                }
                laid.fc.multiply(core, h, n, nullptr, narrow + 0);
                for (int64_t i = 0; i < n; i++) {
                    float* between = grads.between + (r + i) * C;
                    norm_back({w.gain_2, w.shift_2, s.eps}, narrow + i * C, kept.between + (r + i) * C, kept.moments_2[r + i], C,
                              grad_out + (r + i) * C, between, part_of(r, GAIN_2), part_of(r, SHIFT_2), grads.b + (r + i) * C);
                    drop_row(between, r + i, drop_attention, C, nullptr, proj + i * C);
                }
                laid.proj.multiply(core, proj, n, nullptr, grads.y + r * C);
                if (w.b_out) add_rows(out, n, C, part_of(r, B_OUT));
                if (w.b_fc) add_rows(h, n, 4 * C, part_of(r, B_FC));
                if (w.b_proj) add_rows(proj, n, C, part_of(r, B_PROJ));
            });
            Way::Head head(of_attention, true);
            attend_heads_back(head, of_attention, heads(kept.qkv, s, 0, 3), heads(kept.qkv, s, 1, 3), heads(kept.qkv, s, 2, 3),
                              heads(kept.y, s, 0, 1), heads(grads.y + 0, s, 0, 1), kept.log_sums, heads(grads.qkv + 0, s, 0, 3),
                              heads(grads.qkv + 0, s, 1, 3), heads(grads.qkv + 0, s, 2, 3), shares);
            shares.each(parts, [&](int64_t part) {
                const int64_t r = part * ROWS_OF_A_BLOCK, n = std::min(ROWS_OF_A_BLOCK, N - r);
                turn_heads(s, r, n, -1, grads.qkv + 0);
                laid.qkv.multiply(core, grads.qkv + r * 3 * C, n, nullptr, narrow + 0);
                for (int64_t i = r; i < r + n; i++)
                    norm_back({w.gain_1, w.shift_1, s.eps}, narrow + (i - r) * C, stream + i * C, kept.moments_1[i], C,
                              grads.between + i * C, grad + i * C, part_of(r, GAIN_1), part_of(r, SHIFT_1), grads.a + i * C);
                if (w.b_qkv) add_rows(grads.qkv + r * 3 * C, n, 3 * C, part_of(r, B_QKV));
            });
#pragma omp for nowait
            for (int64_t j = 0; j < VECTORS * C; j += L) {
                Floats total = {};
                for (int64_t i = 0; i < parts; i++) total += read<Floats>(sums + i * VECTORS * C + j);
                std::memcpy(grad_weights[nth] + j, &total, sizeof total);
            }
            matrices_of(nth).compute(core, room, shares);
        }
#pragma omp barrier
        matrices_of(0).add_halves(room);
    }
}

}  // namespace

// Of one block; grad_weights: of its vectors, then of its matrices. Whether memory ends.
extern "C" bool IN_TYPE(gpt_block_backward)(const BlockSizes* sizes, const BlockWeights* weights, const float* stream, void* room,
                                            const float* grad_out, float* grad, float* grad_weights, int needed) {
    return memory_ends([&] { backward(1, sizes, weights, &stream, &room, grad_out, grad, &grad_weights, &needed); });
}
