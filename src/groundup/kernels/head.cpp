// What the head of a model needs in training beside its products: cross-entropy of rows of logits, each of which stays in a
// core's caches; and in bfloat16 what its weights get, added to what other rows gave them. A part of training.cpp.
namespace {

// -ln p of each row's target. Going back, p - onehot(target) comes in place of the logits.
template <class T> void cross_entropy(T* logits, const int64_t* targets, float* nats, int64_t rows, int64_t V, bool back) {
#pragma omp parallel for
    for (int64_t i = 0; i < rows; i++) {
        T* row = logits + i * V;
        T& target = row[targets[i]];
        const float largest = largest_of(row, V);
        float total = 0;
#pragma omp simd reduction(+ : total)
        for (int64_t j = 0; j < V; j++) total += exponential(row[j] - largest);
        nats[i] = std::log(total) + (largest - target);  // a sum with a large logit would round away what tells p from 1
        if (!back) continue;
        const float share = 1 / total, of_target = exponential(target - largest) * share - 1;
#pragma omp simd
        for (int64_t j = 0; j < V; j++) row[j] = exponential(row[j] - largest) * share;
        target = of_target;
    }
}

}  // namespace

extern "C" {

// type: 0 fp32, 1 bf16.
void cross_entropy(int type, void* logits, const int64_t* targets, float* nats, int64_t rows, int64_t V, int back) {
    if (type) cross_entropy((Bf16Number*)logits, targets, nats, rows, V, back);
    else cross_entropy((float*)logits, targets, nats, rows, V, back);
}

// out (D, C), floats, is grad (R, D) turned times x (R, C), both bfloat16, or has that added. 0 where those are not multiplied here.
int bf16_weight_gradient(const void* grad, const void* x, float* out, int64_t R, int64_t D, int64_t C, int add) {
#if defined(WITH_BF16)
    const Bf16Gradients gradients(R, {{grad, D, x, C, true}}, out, add);
    Buffer<Ints> laid(gradients.room());
#pragma omp parallel
    {
        Bf16Core core(0);
        gradients.compute(core, laid);
    }
    return 1;
#else
    return 0;
#endif
}
}
