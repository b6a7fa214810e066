// Products of tiles of bfloat16 that narrow.cpp lays down: by the matrix unit (unit.cpp), or by vectors of processors that
// multiply pairs of such numbers (AVX-512 BF16: AMD's from Zen 4 on, some of Intel's). A part of training_bf16.cpp.
#include <immintrin.h>

namespace {

constexpr int64_t SIDE = 32;  // of what is multiplied at a time: two tiles

constexpr int ROWS_OF_PAIRS = 8;  // rows whose sums keep the multipliers of vectors busy

// So many rows of A by SIDE columns of B: each pair of numbers of A, spread over a vector, by vectors of pairs of B.
void multiply_pairs(const Ints* a, const Ints* b, int64_t b_gap, int64_t steps, float* sums, int64_t row, bool add) {
    const auto* pairs = (const int32_t*)a;
    __m512 total[2 * ROWS_OF_PAIRS];
#pragma GCC unroll 16
    for (int i = 0; i < 2 * ROWS_OF_PAIRS; i++) total[i] = add ? _mm512_loadu_ps(sums + i / 2 * row + i % 2 * L) : __m512{};
    for (int64_t k = 0; k < steps * L; k++) {
        const auto first = (__m512bh)b[k], second = (__m512bh)b[b_gap + k];
#pragma GCC unroll 8
        for (int r = 0; r < ROWS_OF_PAIRS; r++) {
            const auto x = (__m512bh)_mm512_set1_epi32(pairs[(k / L * L + r) * L + k % L]);
            total[2 * r] = _mm512_dpbf16_ps(total[2 * r], x, first);
            total[2 * r + 1] = _mm512_dpbf16_ps(total[2 * r + 1], x, second);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < 2 * ROWS_OF_PAIRS; i++) _mm512_storeu_ps(sums + i / 2 * row + i % 2 * L, total[i]);
}

// SIDE rows of A by SIDE columns of B, both laid down, the second half of each so many vectors behind the first. Sums have rows
// of so many numbers, or are added to what is there.
void multiply_tiles(const Ints* a, int64_t a_gap, const Ints* b, int64_t b_gap, int64_t steps, float* sums, int64_t row,
                    bool add = false) {
#if defined(__AMX_BF16__) && defined(WITH_UNIT)
    if (MATRIX_UNIT) {
        float* const below = sums + L * row;
        const int64_t apart = row * sizeof(float);
        if (add) {
            _tile_loadd(0, sums, apart);
            _tile_loadd(1, sums + L, apart);
            _tile_loadd(2, below, apart);
            _tile_loadd(3, below + L, apart);
        } else {
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
        }
        for (int64_t s = 0; s < steps * L; s += L) {
            _tile_loadd(4, a + s, sizeof(Ints));
            _tile_loadd(6, b + s, sizeof(Ints));
            _tile_loadd(7, b + b_gap + s, sizeof(Ints));
            _tile_loadd(5, a + a_gap + s, sizeof(Ints));
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, sums, apart);
        _tile_stored(1, sums + L, apart);
        _tile_stored(2, below, apart);
        _tile_stored(3, below + L, apart);
        return;
    }
#endif
    for (int64_t i = 0; i < SIDE; i += ROWS_OF_PAIRS)
        multiply_pairs(a + i / L * a_gap + i % L, b, b_gap, steps, sums + i * row, row, add);
}

}  // namespace
