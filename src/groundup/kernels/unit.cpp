// The matrix unit that some of Intel's processors have (AMX): eight registers, tiles of 16 rows of 64 bytes, and instructions
// that multiply two of them and add the product to a third. A part of products.cpp and of training's both.
#if defined(__AMX_INT8__) && defined(__linux__)
#define WITH_UNIT
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

constexpr int64_t UNIT_ROWS = 16;  // that it multiplies at a time

#if defined(WITH_UNIT)

const bool MATRIX_UNIT = syscall(SYS_arch_prctl, 0x1023, 18) == 0;  // ARCH_REQ_XCOMP_PERM: the system lends it on request

struct alignas(64) TileShapes {
    TileShapes() { std::fill(bytes, bytes + 8, 64), std::fill(rows, rows + 8, UNIT_ROWS); }
    uint8_t palette = 1, rest[15] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
};
const TileShapes TILE_SHAPES;  // of the program: the compiler does not see that the unit reads all of it

#endif

struct Unit {  // of a core, ready to multiply as long as this lives
    Unit(const Unit&) = delete;
#if defined(WITH_UNIT)
    Unit() {
        if (MATRIX_UNIT) _tile_loadconfig(&TILE_SHAPES);
    }
    ~Unit() {
        if (MATRIX_UNIT) _tile_release();
    }
#else
    Unit() {}
#endif
};

}  // namespace
