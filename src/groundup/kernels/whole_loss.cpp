// The loss of a GPT-2, and what all parameters get from it, in one call: between the blocks' two ways (gpt_block.cpp) the sum of
// its embeddings, and the last norm, the head and the loss. What the loss passes back is known as soon as the logits are, so some
// rows (tokens) at a time go there and back while they are in a core's caches. A part of training.cpp and training_bf16.cpp.
#include <numeric>
#include <vector>

namespace {

constexpr int64_t IGNORED = -100;  // a target that does not count

struct Ends {  // a vocabulary of V; vectors of tokens (V, C) and of places (P, C); of the last norm, whose shift may be null
    int64_t V, P;
    const float *tokens, *places;
    Norm norm;
};

// What all parameters get, one behind the other: of each block its vectors and matrices, then places, gain and shift of the
// last norm, and tokens, with vectors of zeros behind the last: their number W fills vectors.
struct LossGradients {
    LossGradients(int64_t n_blocks, int64_t C, int64_t P, float* to) {
        for (int64_t i = 0; i < n_blocks; i++, to += (VECTORS + 12 * C) * C) blocks.push_back(to);
        places = to, norm = places + P * C, tokens = norm + 2 * C;
    }
    std::vector<float*> blocks;
    float *places, *norm, *tokens;
};

// Whether all are rows of a table of n; targets may be IGNORED.
bool are_rows(const int64_t* ids, int64_t count, int64_t n, bool targets) {
    return std::all_of(ids, ids + count, [=](int64_t id) { return (id >= 0 && id < n) || (targets && id == IGNORED); });
}

// The stream (N, C): of each id its vector, plus that of its place.
void embed(const Ends& ends, const BlockSizes& s, const Dropout& dropout, const int64_t* ids, float* stream) {
#pragma omp parallel for
    for (int64_t i = 0; i < s.B * s.T; i++) {
        const float *token = ends.tokens + ids[i] * s.C, *place = ends.places + i % s.T * s.C;
        float* to = stream + i * s.C;
#pragma omp simd
        for (int64_t j = 0; j < s.C; j++) to[j] = token[j] + place[j];
        if (dropout.dropped) drop_row(to, i, dropout, s.C, nullptr, to);
    }
}

// What tokens get is added to what they have, what places get is written; `grad` is changed.
void embed_back(const Ends& ends, const BlockSizes& s, const Dropout& dropout, const int64_t* ids, float* grad,
                const LossGradients& to) {
    const int64_t C = s.C, N = s.B * s.T;
#pragma omp parallel
    {
        if (dropout.dropped)
#pragma omp for
            for (int64_t i = 0; i < N; i++) drop_row(grad + i * C, i, dropout, C, nullptr, grad + i * C);
#pragma omp for
        for (int64_t first = 0; first < C; first += LINE) {  // some columns are one core's: so sums have one order
            const int64_t n = std::min(LINE, C - first);
            for (int64_t t = 0; t < ends.P; t++) std::fill_n(to.places + t * C + first, n, 0.0f);
            for (int64_t i = 0; i < N; i++) {
                add_rows(grad + i * C + first, 1, n, to.tokens + ids[i] * C + first);
                add_rows(grad + i * C + first, 1, n, to.places + i % s.T * C + first);
            }
        }
    }
}

// The summed loss of a stream, in whose place comes what it gets from so many times that; and what the norm and the head get.
double head_loss(const Ends& ends, const BlockSizes& s, float* stream, const int64_t* targets, float factor,
                 const LossGradients& to) {
    typedef Way::Number Number;
    const Norm& norm = ends.norm;
    const int64_t C = s.C, N = s.B * s.T, V = ends.V, W = (V + L - 1) / L * L, parts = (N + ROWS_OF_A_BLOCK - 1) / ROWS_OF_A_BLOCK;
    Buffer<float> matrix(W * C), sums(parts * 2 * C);
    std::copy_n(ends.tokens, V * C, matrix + 0), std::fill(matrix + V * C, matrix + W * C, 0.0f);
    Buffer<Number> logits(N * W), normed(N * C);
    Buffer<float> nats(N);
    Way::Weights of_logits(W, C), of_normed(C, W);
    const Gradients of_matrix(N, {{logits, W, normed, C, true}}, to.tokens, true);
    Buffer<float> room(of_matrix.room());
    Shares shares;
#pragma omp parallel
    {
        Way::Core core(std::max(W, C));
        Buffer<float> passed(ROWS_OF_A_BLOCK * C), nothing(C);
        std::fill(nothing + 0, nothing + C, 0.0f);
        of_logits.lay(matrix, true), of_normed.lay(matrix, false);
#pragma omp barrier
        shares.each(parts, [&](int64_t part) {
            const int64_t r = part * ROWS_OF_A_BLOCK, n = std::min(ROWS_OF_A_BLOCK, N - r);
            float* of_norm = sums + r / ROWS_OF_A_BLOCK * 2 * C;
            Moments moments[ROWS_OF_A_BLOCK];
            std::fill(of_norm, of_norm + 2 * C, 0.0f);
            for (int64_t i = 0; i < n; i++) moments[i] = normalize(norm, stream + (r + i) * C, normed + (r + i) * C, C);
            of_logits.multiply(core, normed + r * C, n, nullptr, logits + r * W);
            for (int64_t i = r; i < r + n; i++) nats[i] = pass_back(logits + i * W, targets[i], V, factor);
            of_normed.multiply(core, logits + r * W, n, nullptr, passed + 0);
            for (int64_t i = 0; i < n; i++)
                norm_back(norm, passed + i * C, stream + (r + i) * C, moments[i], C, nothing, stream + (r + i) * C, of_norm,
                          of_norm + C, normed + (r + i) * C);
        });
        of_matrix.compute(core, room, shares);
#pragma omp barrier
        of_matrix.add_halves(room);
    }
    std::fill_n(to.norm, 2 * C, 0.0f);
    add_rows(sums + 0, parts, 2 * C, to.norm);
    return std::accumulate(nats + 0, nats + N, 0.0);
}

double loss(int64_t n_blocks, const Ends& ends, const BlockSizes* sizes, const BlockWeights* weights, const Dropout& dropout,
            const int64_t* ids, const int64_t* targets, float factor, float* const* streams, void* const* rooms,
            const LossGradients& to) {
    const std::vector<int> needed(n_blocks, 15);
    float* const last = streams[n_blocks];
    embed(ends, *sizes, dropout, ids, streams[0]);
    forward(n_blocks, sizes, weights, streams, rooms);
    const double total = head_loss(ends, *sizes, last, targets, factor, to);
    backward(n_blocks, sizes, weights, streams, rooms, last, last, to.blocks.data(), needed.data());
    embed_back(ends, *sizes, dropout, ids, last, to);
    return total;
}

}  // namespace

extern "C" {

// The summed loss of ids (B, T), and what parameters get from so many times that (see LossGradients). -1 where an id is none, -2
// a target, -3 where memory does not suffice.
// dropped: two seeds and a bound, of what the stream begins with. streams: room for one more than blocks; rooms: one a block.
double IN_TYPE(gpt_loss)(int64_t n_blocks, const Ends* ends, const BlockSizes* sizes, const BlockWeights* weights,
                         const uint32_t* dropped, const int64_t* ids, const int64_t* targets, float factor,
                         float* const* streams, void* const* rooms, float* gradients) {
    const int64_t N = sizes->B * sizes->T;
    if (!are_rows(ids, N, ends->V, false)) return -1;
    if (!are_rows(targets, N, ends->V, true)) return -2;
    double total = 0;
    const bool ended = memory_ends([&] {
        const Dropout dropout(dropped[0], dropped[1], dropped[2], sizes->C);
        const LossGradients to(n_blocks, sizes->C, ends->P, gradients);
        total = loss(n_blocks, *ends, sizes, weights, dropout, ids, targets, factor, streams, rooms, to);
    });
    return ended ? -3 : total;
}
}
