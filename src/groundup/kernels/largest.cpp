// The largest numbers of a row, as a draw of the next token wants them: a few of 50,257.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {
constexpr int64_t PART = 64;
}

extern "C" {

// The k largest of n numbers in each row, in falling order, and their places. A row with NaN has nothing but that. As many
// parts as are wanted begin at least so high as the k-th largest part's maximum, so few numbers are left to compare.
void largest(const float* x, int64_t n_rows, int64_t n, int64_t k, float* values, int64_t* places) {
    const int64_t n_parts = (n + PART - 1) / PART;
    std::vector<float> most(n_parts), falling;
    std::vector<int64_t> left;
    for (int64_t row = 0; row < n_rows; row++, x += n, values += k, places += k) {
        int64_t n_nan = 0;
        for (int64_t part = 0; part < n_parts; part++) {
            const int64_t end = std::min(n, (part + 1) * PART);
            float found = -INFINITY;
#pragma omp simd reduction(max : found) reduction(+ : n_nan)
            for (int64_t i = part * PART; i < end; i++) {
                found = x[i] > found ? x[i] : found;
                n_nan += x[i] != x[i];
            }
            most[part] = found;
        }
        if (n_nan) {
            std::fill(values, values + k, NAN);
            std::fill(places, places + k, 0);
            continue;
        }
        float least = -INFINITY;
        if (n_parts >= k) {
            falling = most;
            std::nth_element(falling.begin(), falling.begin() + k - 1, falling.end(), std::greater<float>());
            least = falling[k - 1];
        }
        left.clear();
        for (int64_t part = 0; part < n_parts; part++)
            if (most[part] >= least)
                for (int64_t i = part * PART; i < std::min(n, (part + 1) * PART); i++)
                    if (x[i] >= least) left.push_back(i);
        std::partial_sort(left.begin(), left.begin() + k, left.end(), [x](int64_t a, int64_t b) {
            return x[a] > x[b] || (x[a] == x[b] && a < b);
        });
        std::copy(left.begin(), left.begin() + k, places);
        for (int64_t i = 0; i < k; i++) values[i] = x[left[i]];
    }
}
}
