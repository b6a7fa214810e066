// What matrices of weights get in training, by the products of product.cpp or narrow.cpp. A part of training.cpp and
// training_bf16.cpp.
#include <initializer_list>

namespace {

struct GradientOf {  // a matrix (D, C): what its outputs get (N, D), turned, times its inputs (N, C)
    const Way::Number* grad;
    int64_t D;
    const Way::Number* x;
    int64_t C;
    bool needed;
};

// The gradients of some matrices, which lie one behind the other. OWN: cores have written rows (tokens) by shares, so each half
// of many rows is added up by itself, by the cores that have it in their caches.
class Gradients {
  public:
    Gradients(int64_t N, std::initializer_list<GradientOf> all, float* to, bool own, bool added = false) : N(N), added(added) {
        for (const GradientOf& one : all) {
            if (one.needed) {
                parts[n] = {one, to, numbers}, tasks += parts[n++].tasks();
                numbers += one.D * one.C, read += N * (one.D + one.C);
            }
            to += one.D * one.C;
        }
        halves = own && read > MANY * numbers ? 2 : 1, half = (N + halves - 1) / halves;
    }

    int64_t room() const { return halves > 1 ? numbers : 0; }  // that the second half needs

    // By all cores, none of which waits, once all of those is there. They begin with the last, whose tasks are the largest.
    void compute(Way::Core& core, float* second, Shares& shares) const {
        shares.each_nowait(halves * tasks, [&](int64_t task) {
            const int64_t row = task < tasks ? 0 : half;
            int i = n - 1;
            for (task %= tasks; task >= parts[i].tasks(); i--) task -= parts[i].tasks();
            const auto& [of, to, place] = parts[i];
            const int64_t d = task / parts[i].columns() * OUTPUTS, c = task % parts[i].columns() * INPUTS;
            core.gradient(of.grad + row * of.D + d, of.D, of.x + row * of.C + c, of.C,
                          (row ? second + place : to) + d * of.C + c, std::min(half, N - row), std::min(OUTPUTS, of.D - d),
                          std::min(INPUTS, of.C - c), added && !row);
        });
    }

    // By all cores, none of which waits, once all of them have come so far.
    void add_halves(const float* second) const {
        for (int i = 0; i < n && halves > 1; i++) {
            float* to = parts[i].to;
            const float* more = second + parts[i].place;
#pragma omp for simd nowait
            for (int64_t j = 0; j < parts[i].of.D * parts[i].of.C; j++) to[j] += more[j];
        }
    }

  private:
    static constexpr int64_t OUTPUTS = 512, INPUTS = Way::Core::INPUTS_OF_A_TASK;  // of a task
    static constexpr int64_t MANY = 4;  // numbers read for each that is written, where halves are worth sums of their own

    struct Part {
        GradientOf of;
        float* to;
        int64_t place;  // in the room
        int64_t columns() const { return (of.C + INPUTS - 1) / INPUTS; }
        int64_t tasks() const { return (of.D + OUTPUTS - 1) / OUTPUTS * columns(); }
    };

    const int64_t N;
    const bool added;  // to what is there
    Part parts[4];
    int n = 0;
    int64_t numbers = 0, read = 0, tasks = 0, halves, half;
};

}  // namespace
