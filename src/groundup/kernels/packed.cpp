// Products with weights of 8 bits that lie packed: of L outputs side by side, two inputs at a time. So a vector of sums holds
// L outputs and no lanes are added up; a pair of inputs is spread over a vector as it is read. Where outputs or inputs end
// within a vector, there are zeros. Sums of integers are exact, in whatever order. A part of block.cpp.
namespace {

typedef Vector<int16_t, 2 * L> Pairs;  // of inputs, or of their weights

Pairs widen_pairs(const int8_t* w) {
#if defined(__AVX512BW__)  // one instruction: GCC makes four of the conversion below
    return (Pairs)_mm512_cvtepi8_epi16(read<__m256i>(w));
#else
    return __builtin_convertvector(read<Vector<int8_t, 2 * L>>(w), Pairs);
#endif
}

// Each pair of 16-bit integers multiplied and added. K is bounded so that no sum overflows: see `quantize`.
Ints add_pairs(Ints sums, Pairs w, Pairs x) {
#if defined(__AVX512VNNI__)
    return (Ints)_mm512_dpwssd_epi32((__m512i)sums, (__m512i)w, (__m512i)x);
#elif defined(__AVX512BW__)
    return sums + (Ints)_mm512_madd_epi16((__m512i)w, (__m512i)x);
#elif defined(__AVXVNNI__)
    return (Ints)_mm256_dpwssd_avx_epi32((__m256i)sums, (__m256i)w, (__m256i)x);
#elif defined(__AVX2__)
    return sums + (Ints)_mm256_madd_epi16((__m256i)w, (__m256i)x);
#elif defined(__aarch64__)
    int16x8_t a = (int16x8_t)w, b = (int16x8_t)x;
    return sums + (Ints)vpaddq_s32(vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_high_s16(a, b));
#else
    for (int i = 0; i < L; i++) sums[i] += w[2 * i] * x[2 * i] + w[2 * i + 1] * x[2 * i + 1];
    return sums;
#endif
}

constexpr int PACKED_ROWS = ROWS == 12 ? 8 : 4;  // of x by two groups: as many sums as registers hold

int64_t group_bytes(int64_t K) { return (K + 1) / 2 * 2 * L; }

// Outputs of R groups of L, `gap` groups apart, for M rows of x.
template <int R, int M> void packed_tile(const Task& t, int64_t m, int64_t group, int64_t gap) {
    const auto* x = (const int16_t*)t.x + m * t.stride;
    const auto* w = (const int8_t*)t.w + group * group_bytes(t.K);
    Ints sums[M * R] = {};
    for (int64_t k = 0; k < t.K; k += 2, w += 2 * L) {
        Pairs wide[R];
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) wide[r] = widen_pairs(w + r * gap * group_bytes(t.K));
#pragma GCC unroll 12
        for (int i = 0; i < M; i++) {
            const auto spread = (Pairs)(Ints{} + read<int32_t>(x + i * t.stride + k));
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) sums[i * R + r] = add_pairs(sums[i * R + r], wide[r], spread);
        }
    }
    for (int r = 0; r < R; r++) {
        const int64_t at = (group + r * gap) * L, n = t.N - at;
        const Floats scale = part<Fp32>(t.w_scale + at, n), bias = t.bias ? part<Fp32>(t.bias + at, n) : Floats{};
        for (int i = 0; i < M; i++) {
            const Floats sum = __builtin_convertvector(sums[i * R + r], Floats);
            write(sum * (t.x_scale[m + i] * scale) + bias, t.y + (m + i) * t.N + at, n);
        }
    }
}

template <int R> void packed_rows(const Task& t, int64_t group, int64_t gap) {
    int64_t m = 0;
    for (; m + PACKED_ROWS <= t.M; m += PACKED_ROWS) packed_tile<R, PACKED_ROWS>(t, m, group, gap);
    for (; m + PACKED_ROWS / 2 <= t.M; m += PACKED_ROWS / 2) packed_tile<R, PACKED_ROWS / 2>(t, m, group, gap);
    for (; m < t.M; m++) packed_tile<R, 1>(t, m, group, gap);
}

// As `multiply`: one row of x reads four long streams, many rows have two groups' sums in registers.
void multiply_packed(const Task& t) {
    const int64_t groups = (t.N + L - 1) / L, some = rows_of_a_task(groups, group_bytes(t.K));
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t first = 0; first < groups; first += some) {
        int64_t g = first;
        const int64_t end = std::min(groups, first + some), streams = t.M < 4 ? 4 : 2, gap = (end - first) / streams;
        for (; g < first + gap; g++)
            if (t.M < 4)
                for (int64_t m = 0; m < t.M; m++) packed_tile<4, 1>(t, m, g, gap);
            else
                packed_rows<2>(t, g, gap);
        for (g = first + streams * gap; g < end; g++) packed_rows<1>(t, g, 0);
    }
}

}  // namespace

extern "C" {

int lanes() { return L; }

// Rows (N, K) to groups of L of them, (K + 1) / 2 pairs of inputs in each. What is behind the last ones stays as it is.
void pack(const int8_t* rows, int64_t N, int64_t K, int8_t* packed) {
#pragma omp parallel for
    for (int64_t group = 0; group < N; group += L)
        for (int64_t n = group; n < std::min(N, group + L); n++) {
            int8_t* row = packed + group / L * group_bytes(K) + n % L * 2;
            for (int64_t k = 0; k < K; k++) row[k / 2 * 2 * L + k % 2] = rows[n * K + k];
        }
}

// Some rows of a packed matrix (N, K) as floats, out (n, K). Returns whether there are such rows.
int unpack(const int8_t* packed, const float* scale, const int64_t* ids, int64_t n, int64_t N, int64_t K, float* out) {
    if (!std::all_of(ids, ids + n, [N](int64_t id) { return 0 <= id && id < N; })) return 0;
#pragma omp parallel for if (n > FEW_ROWS)
    for (int64_t i = 0; i < n; i++) {
        const int8_t* row = packed + ids[i] / L * group_bytes(K) + ids[i] % L * 2;
        for (int64_t k = 0; k < K; k++) out[i * K + k] = row[k / 2 * 2 * L + k % 2] * scale[ids[i]];
    }
    return 1;
}
}
