// Products of many rows with a large matrix, and attention of the tokens of a prompt: bound by arithmetic.
//
// Weights are widened and turned once for all rows, so that a vector holds one input of L outputs. A tile of ROWS rows by
// two such vectors of sums stays in registers, and each input of a row is spread over a vector as it is read: no sums of
// lanes. Where the rows end, the last tile begins earlier and computes some of them again.
namespace {

#if defined(__AVX512BW__) || defined(__aarch64__)
constexpr int ROWS = 12;  // with 32 vector registers
#else
constexpr int ROWS = 6;
#endif
constexpr int64_t WIDE = 2 * L;  // outputs of a tile

// What the n elements of a row are to be multiplied by.
template <class T> float scale_of(const typename T::W* row, int64_t n) {
    if constexpr (T::BEHIND) return read<float>(row + n);
    return 1;
}

void narrow(Floats v, float* p) { std::memcpy(p, &v, sizeof v); }

void narrow(Floats v, uint16_t* p) {  // to fp16
#if defined(__AVX512BW__)
    const auto half = _mm512_cvtps_ph((__m512)v, 0);
#elif defined(__AVX2__)
    const auto half = _mm256_cvtps_ph((__m256)v, 0);
#elif defined(__aarch64__)
    const auto half = vcvt_f16_f32((float32x4_t)v);
#else
    const auto half = __builtin_convertvector(v, Vector<_Float16, L>);
#endif
    std::memcpy(p, &half, sizeof half);
}

template <class W> void write(Floats v, W* p, int64_t n) {
    if (n >= L) return narrow(v, p);
    W end[L];
    narrow(v, end);
    std::copy(end, end + std::max<int64_t>(n, 0), p);
}

// Rows n .. n + WIDE of N by K weights, turned: two vectors for each step. Zeros stand behind the ends.
template <class T> void turn_rows(const typename T::W* w, int64_t n, int64_t N, int64_t K, Ints* turned) {
    for (int64_t k = 0; k < K; k += L, turned += 2 * L)
        for (int half = 0; half < 2; half++) {
            Ints rows[L];
            for (int r = 0; r < L; r++) {
                const int64_t row = std::min(n + half * L + r, N - 1), left = n + half * L + r < N ? K - k : 0;
                const auto* from = w + row * (K + T::BEHIND);
                rows[r] = (Ints)(part<T>(from + k, left) * scale_of<T>(from, K));
            }
            turn(rows, std::make_index_sequence<L>{});
            for (int64_t j = 0; j < std::min<int64_t>(L, K - k); j++) turned[2 * j + half] = rows[j];
        }
}

// Sums of ROWS rows of x by two vectors of outputs; weights(k, half) are those of a step.
template <class Weights>
void tile(const float* x, int64_t stride, int64_t steps, Weights&& weights, Floats* result) {
    Floats sums[2 * ROWS] = {};
    for (int64_t k = 0; k < steps; k++, x++) {
        const Floats first = weights(k, 0), second = weights(k, 1);
#pragma GCC unroll 12
        for (int i = 0; i < ROWS; i++) {
            sums[2 * i] += first * x[i * stride];
            sums[2 * i + 1] += second * x[i * stride];
        }
    }
#pragma GCC unroll 24
    for (int i = 0; i < 2 * ROWS; i++) result[i] = sums[i];
}

template <class T> void multiply_many(const Task& t) {
#pragma omp parallel
    {
        Buffer<Ints> turned(2 * t.K);
        auto weights = [&turned](int64_t k, int half) { return (Floats)turned[2 * k + half]; };
#pragma omp for schedule(dynamic, 1)
        for (int64_t n = 0; n < t.N; n += WIDE) {
            turn_rows<T>((const typename T::W*)t.w, n, t.N, t.K, turned);
            Floats bias[2] = {};
            for (int half = 0; t.bias && half < 2; half++)
                bias[half] = part<Fp32>(t.bias + n + half * L, t.N - n - half * L);
            for (int64_t m = 0; m < t.M; m += ROWS) {
                const int64_t first = std::min(m, t.M - ROWS);
                Floats sums[2 * ROWS];
                tile(t.x + first * t.stride, t.stride, t.K, weights, sums);
                for (int i = 0; i < 2 * ROWS; i++) {
                    const int64_t row = first + i / 2, at = n + i % 2 * L;
                    write(sums[i] + bias[i % 2], t.y + row * t.N + at, t.N - at);
                }
            }
        }
    }
}

// One head of T >= ROWS tokens of a text behind `held` others: as `attend` in block.cpp, a tile of queries at a time. C is
// the distance of the tokens in y, and a third of that in q.
template <class Type>
void attend_prompt(const float* q, const typename Type::W* keys, const typename Type::W* values, int64_t held, int64_t T,
                   int64_t D, float* y, int64_t C) {
    const int64_t S = held + T, blocks = (S + WIDE - 1) / WIDE, room = blocks * WIDE + L;
    Buffer<Ints> turned(blocks * 2 * D);
    for (int64_t block = 0; block < blocks; block++) turn_rows<Type>(keys, block * WIDE, S, D, turned + block * 2 * D);
    Buffer<float> weights(ROWS * room);
    const float scale = 1 / std::sqrt((float)D);
    for (int64_t m = 0; m < T; m += ROWS) {
        const int64_t first = std::min(m, T - ROWS), seen = held + first + ROWS;  // by the last of them
        for (int64_t block = 0; block * WIDE < seen; block++) {
            Floats sums[2 * ROWS];
            const Ints* part_of_keys = turned + block * 2 * D;
            auto key = [&](int64_t d, int half) { return (Floats)part_of_keys[2 * d + half]; };
            tile(q + first * 3 * C, 3 * C, D, key, sums);
            for (int i = 0; i < 2 * ROWS; i++) narrow(sums[i] * scale, weights + i / 2 * room + block * WIDE + i % 2 * L);
        }
        float totals[ROWS];
        for (int i = 0; i < ROWS; i++) {
            float *row = weights + i * room, total = 0;
            const int64_t own = seen - ROWS + i + 1;
            const float largest = *std::max_element(row, row + own);
#pragma omp simd reduction(+ : total)
            for (int64_t s = 0; s < own; s++) total += row[s] = exponential(row[s] - largest);
            std::fill(row + own, row + seen, 0.0f);
            totals[i] = total;
        }
        for (int64_t d = 0; d < D; d += WIDE) {
            Floats sums[2 * ROWS];
            auto value = [&](int64_t s, int half) {
                const auto* row = values + s * (D + Type::BEHIND);
                return part<Type>(row + d + half * L, D - d - half * L) * scale_of<Type>(row, D);
            };
            tile(weights, room, seen, value, sums);
            for (int i = 0; i < 2 * ROWS; i++)
                write(sums[i] / totals[i / 2], y + (first + i / 2) * C + d + i % 2 * L, D - d - i % 2 * L);
        }
    }
}

}  // namespace
