// What training on a CPU has in bfloat16, where vectors multiply it: the same files as in training.cpp, beside which this is
// compiled, by a compiler of its own.
#if defined(__AVX512BF16__)

#include "numbers.cpp"
#include "vectors.cpp"
#include "shares.cpp"
#include "product.cpp"
#include "wide.cpp"
#include "unit.cpp"
#include "tiles.cpp"
#include "narrow.cpp"
#include "heads.cpp"
#include "narrow_heads.cpp"

namespace {

struct Way {
    typedef Bf16Number Number;
    typedef Bf16Core Core;
    typedef Bf16Head Head;
    typedef Bf16Weights Weights;
    static constexpr int32_t TYPE = 1;
};

}  // namespace

#define IN_TYPE(name) bf16_##name
#include "attention.cpp"
#include "rows.cpp"
#include "gradients.cpp"
#include "gpt_block.cpp"
#include "gpt_block_back.cpp"
#include "head.cpp"
#include "whole_loss.cpp"

#endif
