// Tasks of a loop, of which each core has a share that is always the same: what it wrote in the loop before lies in its caches,
// and a number that another core has read takes longer to write. A part of training.cpp and training_bf16.cpp.
#include <atomic>
#include <vector>

namespace {

class Shares {
  public:
    Shares() : cores(omp_get_max_threads()) {}

    // By all cores: each of n tasks once. Whoever is done with its share helps the others, and waits until all is done.
    template <class Body> void each(int64_t n, const Body& body) {
        each_nowait(n, body);
#pragma omp barrier
    }

    // The same; who calls it waits before the next loop.
    template <class Body> void each_nowait(int64_t n, const Body& body) {
        const int64_t n_cores = omp_get_num_threads(), me = omp_get_thread_num();
        const bool odd = cores[me].odd = !cores[me].odd;
        cores[me].taken[!odd] = 0;  // of the loop before, which all have left, for the next
        for (int64_t i = 0; i < n_cores; i++) {
            const int64_t whose = (me + i) % n_cores, begin = n * whose / n_cores, end = n * (whose + 1) / n_cores;
            for (int64_t task; (task = begin + cores[whose].taken[odd]++) < end;) body(task);
        }
    }

  private:
    struct alignas(64) Core {
        std::atomic<int64_t> taken[2] = {};
        bool odd = false;
    };
    std::vector<Core> cores;
};

}  // namespace
