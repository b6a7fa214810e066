// Products with weights of 8 bits that lie packed: of L outputs side by side, four inputs at a time. So a vector of sums
// holds L outputs and no lanes are added up; four inputs of a row are spread over a vector as they are read. Where outputs
// or inputs end within a vector, there are zeros. Inputs are rounded to 8 bits, BLOCK of them with a scale: a large one makes
// only its neighbors coarse. Sums of a block are exact. A part of products.cpp.
#include <numeric>

namespace {

constexpr int64_t BLOCK = 128;  // as in runtime/stored.py
typedef Vector<int8_t, 4 * L> Fours;  // of inputs, or of their weights

#if defined(__AVX512VNNI__) || (defined(__AVXVNNI__) && !defined(__AVX512BW__))
constexpr int32_t LIFTED = 128;  // the instruction takes one factor without a sign: weights plus this
#else
constexpr int32_t LIFTED = 0;
#endif

// Four products of 8-bit integers of either sign, -127 to 127, added to each sum.
Ints add_fours(Ints sums, Fours w, Fours x) {
#if defined(__AVX512VNNI__)
    return (Ints)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)w, (__m512i)x);
#elif defined(__AVX512BW__)
    const auto turned = _mm512_mask_sub_epi8((__m512i)w, _mm512_movepi8_mask((__m512i)x), __m512i{}, (__m512i)w);
    const auto pairs = _mm512_maddubs_epi16(_mm512_abs_epi8((__m512i)x), turned);
    return sums + (Ints)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
#elif defined(__AVXVNNI__)
    return (Ints)_mm256_dpbusd_avx_epi32((__m256i)sums, (__m256i)w, (__m256i)x);
#elif defined(__AVX2__)
    const auto pairs = _mm256_maddubs_epi16(_mm256_abs_epi8((__m256i)x), _mm256_sign_epi8((__m256i)w, (__m256i)x));
    return sums + (Ints)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#elif defined(__ARM_FEATURE_DOTPROD)
    return (Ints)vdotq_s32((int32x4_t)sums, (int8x16_t)w, (int8x16_t)x);
#elif defined(__aarch64__)
    const int16x8_t low = vmull_s8(vget_low_s8((int8x16_t)w), vget_low_s8((int8x16_t)x));
    const int16x8_t high = vmull_high_s8((int8x16_t)w, (int8x16_t)x);
    return sums + (Ints)vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high));
#else
    for (int i = 0; i < 4 * L; i++) sums[i / 4] += w[i] * x[i];
    return sums;
#endif
}

constexpr int PACKED_ROWS = ROWS == 12 ? 8 : 4;  // of x by two groups: as many sums as registers hold

int64_t group_bytes(int64_t K) { return (K + 3) / 4 * 4 * L; }

struct Rounded {  // rows of x: integers, `stride` apart, and of each block a scale and where its sums begin
    const int8_t* q;
    const float* scales;
    const int32_t* starts;
    int64_t stride, blocks;
};

bool suits_unit(const Task& t);  // as the next in packed_unit.cpp
void multiply_by_unit(const Task& t, const Rounded& x, int64_t groups, int64_t some);

// Outputs of a group: n rows of y from m on, from sums that lie `gap` apart.
void write_scaled(const Task& t, const Floats* totals, int64_t gap, int64_t m, int64_t n, int64_t group) {
    const int64_t at = group * L, left = t.N - at;
    const Floats scale = part<Fp32>(t.w_scale + at, left), bias = t.bias ? part<Fp32>(t.bias + at, left) : Floats{};
    for (int64_t i = 0; i < n; i++) write(totals[i * gap] * scale + bias, t.y + (m + i) * t.N + at, left);
}

// Outputs of R groups of L, `gap` groups apart, for M rows of x.
template <int R, int M> void packed_tile(const Task& t, const Rounded& x, int64_t m, int64_t group, int64_t gap) {
    const auto* w = (const int8_t*)t.w + group * group_bytes(t.K);
    Floats totals[M * R] = {};
    for (int64_t block = 0; block < x.blocks; block++) {
        const int64_t first = block * BLOCK, at = m * x.blocks + block;
        Ints sums[M * R];
        for (int i = 0; i < M * R; i++) sums[i] = Ints{} + x.starts[at + i / R * x.blocks];
        for (int64_t k = first; k < std::min(t.K, first + BLOCK); k += 4, w += 4 * L) {
            Fours lifted[R];
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                const int8_t* from = w + r * gap * group_bytes(t.K);
                if (M > 1) __builtin_prefetch(from + AHEAD);
                lifted[r] = read<Fours>(from) ^ (int8_t)LIFTED;
            }
#pragma GCC unroll 8
            for (int i = 0; i < M; i++) {
                const auto spread = (Fours)(Ints{} + read<int32_t>(x.q + (m + i) * x.stride + k));
#pragma GCC unroll 4
                for (int r = 0; r < R; r++) sums[i * R + r] = add_fours(sums[i * R + r], lifted[r], spread);
            }
        }
        for (int i = 0; i < M * R; i++)
            totals[i] += __builtin_convertvector(sums[i], Floats) * x.scales[at + i / R * x.blocks];
    }
    for (int r = 0; r < R; r++) write_scaled(t, totals + r, R, m, M, group + r * gap);
}

template <int R> void packed_rows(const Task& t, const Rounded& x, int64_t group, int64_t gap) {
    int64_t m = 0;
    for (; m + PACKED_ROWS <= t.M; m += PACKED_ROWS) packed_tile<R, PACKED_ROWS>(t, x, m, group, gap);
    for (; m + PACKED_ROWS / 2 <= t.M; m += PACKED_ROWS / 2) packed_tile<R, PACKED_ROWS / 2>(t, x, m, group, gap);
    for (; m < t.M; m++) packed_tile<R, 1>(t, x, m, group, gap);
}

// As `multiply`: one row of x reads four long streams, many rows have two groups' sums in registers.
void multiply_packed(const Task& t) {
    const int64_t groups = (t.N + L - 1) / L, some = rows_of_a_task(groups, group_bytes(t.K));
    const int64_t blocks = (t.K + BLOCK - 1) / BLOCK, stride = (blocks + 1) * BLOCK;
    const bool unit = suits_unit(t);
    const int64_t rows = unit ? (t.M + UNIT_ROWS - 1) / UNIT_ROWS * UNIT_ROWS : t.M;
    Buffer<int8_t> q(rows * stride);
    Buffer<float> scales(rows * blocks);
    Buffer<int32_t> starts(t.M * blocks);
#pragma omp parallel for if (t.M > 1)
    for (int64_t m = 0; m < t.M; m++)
        for (int64_t block = 0; block < blocks; block++) {
            const int64_t first = block * BLOCK, n = std::min(BLOCK, t.K - first), at = m * blocks + block;
            int8_t* row = q + m * stride + first;
            quantize(t.x + m * t.K + first, n, row, scales + at);
            std::fill(row + n, row + BLOCK, 0);
            starts[at] = -LIFTED * std::accumulate(row, row + BLOCK, 0);
        }
    std::fill(q + t.M * stride, q + rows * stride, 0), std::fill(scales + t.M * blocks, scales + rows * blocks, 0.0f);
    const Rounded x = {q, scales, starts, stride, blocks};
    if (unit) return multiply_by_unit(t, x, groups, some);
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t first = 0; first < groups; first += some) {
        int64_t g = first;
        const int64_t end = std::min(groups, first + some), streams = t.M < 4 ? 4 : 2, gap = (end - first) / streams;
        for (; g < first + gap; g++)
            if (t.M < 4)
                for (int64_t m = 0; m < t.M; m++) packed_tile<4, 1>(t, x, m, g, gap);
            else
                packed_rows<2>(t, x, g, gap);
        for (g = first + streams * gap; g < end; g++) packed_rows<1>(t, x, g, 0);
    }
}

}  // namespace

extern "C" {

int lanes() { return L; }

// Rows (N, K) to groups of L of them, (K + 3) / 4 times four inputs in each. What is behind the last ones stays as it is.
void pack(const int8_t* rows, int64_t N, int64_t K, int8_t* packed) {
#pragma omp parallel for
    for (int64_t group = 0; group < N; group += L)
        for (int64_t n = group; n < std::min(N, group + L); n++) {
            int8_t* row = packed + group / L * group_bytes(K) + n % L * 4;
            for (int64_t k = 0; k < K; k++) row[k / 4 * 4 * L + k % 4] = rows[n * K + k];
        }
}

// Some rows of a packed matrix (N, K) as floats, out (n, K). Returns whether there are such rows.
int unpack(const int8_t* packed, const float* scale, const int64_t* ids, int64_t n, int64_t N, int64_t K, float* out) {
    if (!std::all_of(ids, ids + n, [N](int64_t id) { return 0 <= id && id < N; })) return 0;
#pragma omp parallel for if (n > FEW_ROWS)
    for (int64_t i = 0; i < n; i++) {
        const int8_t* row = packed + ids[i] / L * group_bytes(K) + ids[i] % L * 4;
        for (int64_t k = 0; k < K; k++) out[i * K + k] = row[k / 4 * 4 * L + k % 4] * scale[ids[i]];
    }
    return 1;
}
}
