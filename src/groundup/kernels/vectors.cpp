// Vectors as wide as the machine's, how they are read, and how they are turned: a part of both libraries. They are the extension
// that GCC and Clang share; intrinsics stand, in files that need them, where it has no word: their header takes a tenth of
// the time that a person waits for training's.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <omp.h>
#include <utility>

namespace {

#if defined(__AVX512BW__)
constexpr int BYTES = 64;
#elif defined(__AVX2__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;
#endif
constexpr int L = BYTES / 4;  // 32-bit lanes of a vector

template <class T, int N> struct VectorOf { typedef T type __attribute__((vector_size(N * sizeof(T)))); };
template <class T, int N> using Vector = typename VectorOf<T, N>::type;
typedef Vector<float, L> Floats;
typedef Vector<int32_t, L> Ints;

template <class V> V read(const void* p) {  // wherever it lies
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

// Room for n elements at the border of a cache line: a vector that lies across two of them is read twice.
template <class T> class Buffer {
  public:
    explicit Buffer(int64_t n) : data((T*)std::aligned_alloc(64, (n * sizeof(T) + 63) / 64 * 64)) {
        if (n > 0 && !data) throw std::bad_alloc();
    }
    ~Buffer() { std::free(data); }
    Buffer(const Buffer&) = delete;
    operator T*() const { return data; }

  private:
    T* data;
};

// Whether memory ends in it: exceptions may not leave a library.
template <class Body> bool memory_ends(const Body& body) {
    try {
        body();
    } catch (const std::bad_alloc&) {
        return true;
    }
    return false;
}

struct Fp32 {  // a type of numbers, as those of kernels.cpp: W as stored
    typedef float W;
    static constexpr int64_t BEHIND = 0;  // elements behind those of a row
    static Floats widen(const W* w) { return read<Floats>(w); }
};

// The first n elements of a step, and zeros behind them. WHOLE: there are never fewer than fill it.
template <class T, bool WHOLE = false> Floats part(const typename T::W* p, int64_t n) {
    if (WHOLE || n >= L) return T::widen(p);
    typename T::W end[L] = {};
    std::copy(p, p + std::max<int64_t>(n, 0), end);
    return T::widen(end);
}

// A matrix of L vectors turned. Interleaving the first half of the rows with the second moves each element's place by
// one bit from its row to its column.
template <size_t... i> INLINE void turn(Ints* v, std::index_sequence<i...>) {
#pragma GCC unroll 4
    for (int round = 1; round < L; round *= 2) {
        Ints turned[L];
#pragma GCC unroll 8
        for (int j = 0; j < L / 2; j++) {
            turned[2 * j] = __builtin_shufflevector(v[j], v[j + L / 2], i / 2 + i % 2 * L...);
            turned[2 * j + 1] = __builtin_shufflevector(v[j], v[j + L / 2], L / 2 + i / 2 + i % 2 * L...);
        }
#pragma GCC unroll 16
        for (int j = 0; j < L; j++) v[j] = turned[j];
    }
}

}  // namespace
