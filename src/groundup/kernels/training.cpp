// What training on a CPU has in float32, and what has no products. Decoding rotates heads by it, too.
#include "numbers.cpp"
#include "vectors.cpp"
#include "shares.cpp"
#include "product.cpp"
#include "wide.cpp"
#include "unit.cpp"
#include "heads.cpp"

namespace {

struct Way {  // how this half of the library multiplies
    typedef float Number;
    typedef FloatCore Core;
    typedef FloatHead Head;
    typedef FloatWeights Weights;
    static constexpr int32_t TYPE = 0;  // as attention.cpp counts them
};

}  // namespace

#define IN_TYPE(name) name
#include "attention.cpp"
#include "dropout.cpp"
#include "gelu.cpp"
#include "relu.cpp"
#include "muon.cpp"
#include "adamw.cpp"
#include "rows.cpp"
#include "gradients.cpp"
#include "gpt_block.cpp"
#include "gpt_block_back.cpp"
#include "head.cpp"
#include "whole_loss.cpp"

extern "C" {

// type: 0 fp32, 1 bf16.
void cross_entropy(int type, void* logits, const int64_t* targets, float* nats, int64_t rows, int64_t V, int back) {
    if (type) cross_entropy((Bf16Number*)logits, targets, nats, rows, V, back);
    else cross_entropy((float*)logits, targets, nats, rows, V, back);
}

int lanes_in_training() { return L; }
}
