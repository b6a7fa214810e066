// How fast memory can be read, in streams as kernels.cpp reads weights. A part of block.cpp.
extern "C" {

// The sum of n 32-bit integers, modulo 2^32, by all cores.
int32_t sum(const int32_t* data, int64_t n) {
    constexpr int64_t streams = 4, some = LONG_TASK / sizeof(int32_t), stream = some / streams;
    int32_t total = 0;
#pragma omp parallel for schedule(dynamic, 1) reduction(+ : total)
    for (int64_t first = 0; first < n; first += some) {
        Ints sums[streams] = {};
        const bool whole = first + some <= n;
        for (int64_t i = first; whole && i < first + stream; i += L)
            for (int j = 0; j < streams; j++) sums[j] += read<Ints>(data + i + j * stream);
        const Ints added = add_lanes(sums, streams);
        for (int j = 0; j < streams; j++) total += added[j];
        for (int64_t i = first; !whole && i < n; i++) total += data[i];
    }
    return total;
}
}
