// Products of packed weights of 8 bits by the matrix unit (unit.cpp): 16 rows of x by 16 outputs in 64 steps of an instruction.
// `pack` has laid weights down as that unit reads them. Sums of a block are exact and blocks are added up as `packed_tile` does
// it, so a row of x gets the same bits here and there. A part of products.cpp.
namespace {

#if defined(WITH_UNIT)

constexpr int64_t STEP = 64;         // inputs that a tile holds
constexpr int64_t FEW_FOR_UNIT = 8;  // rows of x that vectors multiply as fast

// Outputs of R groups, one behind the other, for UNIT_ROWS rows of x.
template <int R> void unit_tile(const Task& t, const Rounded& x, int64_t m, int64_t group) {
    const int64_t bytes = group_bytes(t.K);
    const auto* w = (const int8_t*)t.w + group * bytes;
    Floats totals[R * UNIT_ROWS] = {};
    Ints sums[R * UNIT_ROWS];
    for (int64_t block = 0; block < x.blocks; block++) {
        const int64_t first = block * BLOCK;
        _tile_zero(0);
        if (R > 1) _tile_zero(1);
        for (int64_t k = first; k < std::min(t.K, first + BLOCK); k += STEP, w += STEP * L) {
            _tile_loadd(2, x.q + m * x.stride + k, x.stride);
            _tile_loadd(3, w, 4 * L);
            _tile_dpbssd(0, 2, 3);
            if (R > 1) {
                _tile_loadd(4, w + bytes, 4 * L);
                _tile_dpbssd(1, 2, 4);
            }
            if (m > 0) continue;
#pragma GCC unroll 16
            for (int64_t i = 0; i < UNIT_ROWS; i++)
                for (int r = 0; r < R; r++) __builtin_prefetch(w + r * bytes + i * 4 * L + AHEAD);
        }
        _tile_stored(0, sums, sizeof(Ints));
        if (R > 1) _tile_stored(1, sums + UNIT_ROWS, sizeof(Ints));
#pragma GCC unroll 16
        for (int64_t i = 0; i < UNIT_ROWS; i++)
#pragma GCC unroll 2
            for (int r = 0; r < R; r++) {
                const int64_t at = r * UNIT_ROWS + i;
                totals[at] += __builtin_convertvector(sums[at], Floats) * x.scales[(m + i) * x.blocks + block];
            }
    }
    for (int r = 0; r < R; r++) write_scaled(t, totals + r * UNIT_ROWS, 1, m, std::min(UNIT_ROWS, t.M - m), group + r);
}

template <int R> void unit_rows(const Task& t, const Rounded& x, int64_t group) {
    for (int64_t m = 0; m < t.M; m += UNIT_ROWS) unit_tile<R>(t, x, m, group);
}

bool suits_unit(const Task& t) { return MATRIX_UNIT && t.M > FEW_FOR_UNIT && t.K % STEP == 0; }

// Behind the rows of x zeros fill the last UNIT_ROWS.
void multiply_by_unit(const Task& t, const Rounded& x, int64_t groups, int64_t some) {
#pragma omp parallel
    {
        const Unit unit;
#pragma omp for schedule(dynamic, 1)
        for (int64_t first = 0; first < groups; first += some) {
            const int64_t end = std::min(groups, first + some);
            int64_t g = first;
            for (; g + 2 <= end; g += 2) unit_rows<2>(t, x, g);
            if (g < end) unit_rows<1>(t, x, g);
        }
    }
}

#else

bool suits_unit(const Task&) { return false; }
void multiply_by_unit(const Task&, const Rounded&, int64_t, int64_t) {}

#endif

}  // namespace
