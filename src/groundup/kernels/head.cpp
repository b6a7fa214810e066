// What the head of a model needs in training beside its products: cross-entropy of rows of logits, each of which stays in a
// core's caches; and what its weights, or those of another layer, get. A part of training.cpp and training_bf16.cpp.
namespace {

struct RowSum {  // of e^(logit - largest)
    float largest, total;
};

template <class T> RowSum sum_of_row(const T* row, int64_t V) {
    const float largest = largest_of(row, V);
    float total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t j = 0; j < V; j++) total += exponential(row[j] - largest);
    return {largest, total};
}

// -ln p of a logit of that row: a sum with a large logit would round away what tells p from 1.
float nats_of(float logit, const RowSum& sum) { return std::log(sum.total) + (sum.largest - logit); }

// That of a row's target, and p - onehot(target) times a factor in place of the logits; zeros where the target does not count.
template <class T> float pass_back(T* row, int64_t target, int64_t V, float factor) {
    if (target < 0) {
        std::fill(row, row + V, T{});
        return 0;
    }
    const RowSum sum = sum_of_row(row, V);
    const float largest = sum.largest, share = factor / sum.total, nats = nats_of(row[target], sum);
    const float of_target = exponential(row[target] - largest) * share - factor;
#pragma omp simd
    for (int64_t j = 0; j < V; j++) row[j] = exponential(row[j] - largest) * share;
    row[target] = of_target;
    return nats;
}

template <class T> void cross_entropy(T* logits, const int64_t* targets, float* nats, int64_t rows, int64_t V, bool back) {
#pragma omp parallel for
    for (int64_t i = 0; i < rows; i++) {
        T* row = logits + i * V;
        nats[i] = back ? pass_back(row, targets[i], V, 1) : nats_of(row[targets[i]], sum_of_row(row, V));
    }
}

}  // namespace

// out (D, C), floats, is grad (R, D) turned times x (R, C), or has that added.
extern "C" void IN_TYPE(weight_gradient)(const void* grad, const void* x, float* out, int64_t R, int64_t D, int64_t C, int add) {
    const Gradients gradients(R, {{(const Way::Number*)grad, D, (const Way::Number*)x, C, true}}, out, false, add);
    Buffer<float> room(gradients.room());
    Shares shares;
#pragma omp parallel
    {
        Way::Core core(0);
        gradients.compute(core, room, shares);
    }
}
