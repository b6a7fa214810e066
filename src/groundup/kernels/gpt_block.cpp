// Blocks of GPT-2 in training, forward here and back in gpt_block_back.cpp, in bfloat16 (narrow.cpp) or in float32 (wide.cpp);
// queries and keys may be rotated. Some rows (tokens) at a time go through all that treats them alone, while they are in a
// core's caches: norm and product before attention; behind it product, norm, MLP and what is added to the stream. Cores wait
// for each other around attention only, and one that is late has less to do. A part of training.cpp and training_bf16.cpp.
namespace {

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
struct BlockKept {
    BlockKept(const BlockSizes& s, void* room) : all(room) {
        const int64_t N = s.B * s.T;
        all.give(qkv, N * 3 * s.C), all.give(y, N * s.C), all.give(h, N * 4 * s.C), all.give(between, N * s.C);
        all.give(log_sums, N * s.H), all.give(moments_1, N), all.give(moments_2, N);
    }
    Rooms all;
    Way::Number *qkv, *y, *h;
    float *between, *log_sums;
    Moments *moments_1, *moments_2;
};

Sizes attention_sizes(const BlockSizes& s) {
    return {s.B, s.T, s.H, s.H, s.C / s.H, Way::TYPE, s.dropped[0][0], s.dropped[0][1], s.dropped[0][2]};
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

struct LaidWeights {  // of a block, for products forward or back
    LaidWeights(int64_t C, bool forward)
        : forward(forward), qkv(forward ? 3 * C : C, forward ? C : 3 * C), proj(C, C),
          fc(forward ? 4 * C : C, forward ? C : 4 * C), out(forward ? C : 4 * C, forward ? 4 * C : C) {}
    // By all cores, none of which waits.
    void lay_rest(const BlockWeights& w) { proj.lay(w.w_proj, forward), fc.lay(w.w_fc, forward), out.lay(w.w_out, forward); }
    const bool forward;
    Way::Weights qkv, proj, fc, out;
};

// Some blocks, from a stream each: the next one's, if there is one, gets what a block gives. Behind attention rows go on
// into the next block.
void forward(int64_t n_blocks, const BlockSizes* sizes, const BlockWeights* weights, float* const* streams, void* const* rooms) {
    const int64_t C = sizes->C, N = sizes->B * sizes->T, parts = (N + ROWS_OF_A_BLOCK - 1) / ROWS_OF_A_BLOCK;
    LaidWeights laid(C, true);
    Shares shares;
#pragma omp parallel
    {
        Way::Core core(4 * C);
        Buffer<float> added(ROWS_OF_A_BLOCK * C);
        Buffer<Way::Number> normed(ROWS_OF_A_BLOCK * C), g(ROWS_OF_A_BLOCK * 4 * C);
        const auto norm_rows = [&](const Norm& norm, int64_t r, int64_t n, const float* x, Moments* moments) {
            for (int64_t i = 0; i < n; i++) moments[r + i] = normalize(norm, x + (r + i) * C, normed + i * C, C);
        };
        const auto project = [&](int64_t nth, int64_t r, int64_t n) {
            const BlockSizes& s = sizes[nth];
            const BlockWeights& w = weights[nth];
            const BlockKept kept(s, rooms[nth]);
            norm_rows({w.gain_1, w.shift_1, s.eps}, r, n, streams[nth], kept.moments_1);
            laid.qkv.multiply(core, normed, n, w.b_qkv, kept.qkv + r * 3 * C);
            turn_heads(s, r, n, 1, kept.qkv);
        };
        laid.qkv.lay(weights->w_qkv, true);
#pragma omp barrier
        shares.each(parts, [&](int64_t part) {
            const int64_t r = part * ROWS_OF_A_BLOCK;
            project(0, r, std::min(ROWS_OF_A_BLOCK, N - r));
        });
        for (int64_t nth = 0; nth < n_blocks; nth++) {
            const BlockSizes& s = sizes[nth];
            const BlockWeights& w = weights[nth];
            const BlockKept kept(s, rooms[nth]);
            const Sizes of_attention = attention_sizes(s);
            const Dropout drop_attention = dropout_of(s, 1), drop_mlp = dropout_of(s, 2);
            const bool last = nth + 1 == n_blocks;
            laid.lay_rest(w);
            if (!last) laid.qkv.lay(weights[nth + 1].w_qkv, true);
            Way::Head head(of_attention, false);
            attend_heads(head, of_attention, heads(kept.qkv, s, 0, 3), heads(kept.qkv, s, 1, 3), heads(kept.qkv, s, 2, 3),
                         heads(kept.y, s, 0, 1), kept.log_sums, shares);
            shares.each(parts, [&](int64_t part) {
                const int64_t r = part * ROWS_OF_A_BLOCK, n = std::min(ROWS_OF_A_BLOCK, N - r);
                Way::Number* h = kept.h + r * 4 * C;
                laid.proj.multiply(core, kept.y + r * C, n, w.b_proj, added + 0);
                for (int64_t i = 0; i < n; i++)
                    drop_row(added + i * C, r + i, drop_attention, C, streams[nth] + (r + i) * C, kept.between + (r + i) * C);
                norm_rows({w.gain_2, w.shift_2, s.eps}, r, n, kept.between, kept.moments_2);
                laid.fc.multiply(core, normed, n, w.b_fc, h);
#pragma omp simd
                for (int64_t j = 0; j < n * 4 * C; j++) g[j] = h[j] * sigmoid(h[j]);
                laid.out.multiply(core, g, n, w.b_out, added + 0);
                for (int64_t i = 0; i < n; i++)
                    drop_row(added + i * C, r + i, drop_mlp, C, kept.between + (r + i) * C, streams[nth + 1] + (r + i) * C);
                if (!last) project(nth + 1, r, n);
            });
        }
    }
}

}  // namespace

extern "C" {

// Bytes that `forward` keeps in a room for the way back.
int64_t IN_TYPE(gpt_block_room)(const BlockSizes* sizes) { return BlockKept(*sizes, nullptr).all.taken(); }

// Blocks alike but for their weights and seeds. streams: one more than blocks; rooms: one a block. Whether memory ends.
bool IN_TYPE(gpt_blocks_forward)(int64_t n_blocks, const BlockSizes* sizes, const BlockWeights* weights, float* const* streams,
                                 void* const* rooms) {
    return memory_ends([&] { forward(n_blocks, sizes, weights, streams, rooms); });
}
}
