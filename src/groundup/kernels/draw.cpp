// The draw of the next token, in one call: what `choose` of generation/sampling.py does from temperature on. As a dozen steps
// of PyTorch it would take a tenth of a token's time in 8 bits: after the weights went by, no cache holds what those need. A
// part of products.cpp.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

namespace {

constexpr int64_t PART = 64;

struct Filters {
    float temperature;
    int64_t top_k;  // 0 keeps all
    double top_p, min_p;
};

// The largest number of each part; returns how many are none.
int64_t maxima(const float* x, int64_t n, std::vector<float>& most) {
    int64_t n_nan = 0;
    most.assign((n + PART - 1) / PART, -INFINITY);
    for (int64_t part = 0; part < (int64_t)most.size(); part++) {
        const float* from = x + part * PART;
        const int64_t some = std::min(PART, n - part * PART);
#pragma omp simd reduction(+ : n_nan)
        for (int64_t i = 0; i < some; i++) n_nan += from[i] != from[i];
        most[part] = largest_of(from, some);
    }
    return n_nan;
}

// The places of all x for which kept(x) holds, in their order; kept holds for whatever is larger.
template <class Kept>
void places(const float* x, int64_t n, const std::vector<float>& most, Kept kept, std::vector<int64_t>& into) {
    for (int64_t part = 0; part < (int64_t)most.size(); part++)
        if (kept(most[part]))
            for (int64_t i = part * PART; i < std::min(n, (part + 1) * PART); i++)
                if (kept(x[i])) into.push_back(i);
}

// The k-th largest of n numbers, 0 < k <= n. As many parts as are wanted begin at least so high as the k-th largest part's
// maximum, so few numbers are left to compare.
float kth_largest(const float* x, int64_t n, int64_t k, const std::vector<float>& most) {
    auto kth = [k](std::vector<float> of) {
        std::nth_element(of.begin(), of.begin() + k - 1, of.end(), std::greater<float>());
        return of[k - 1];
    };
    const float least = (int64_t)most.size() >= k ? kth(most) : -INFINITY;
    std::vector<int64_t> high;
    places(x, n, most, [least](float value) { return value >= least; }, high);
    std::vector<float> values;
    for (int64_t i : high) values.push_back(x[i]);
    return kth(std::move(values));
}

// The largest weight such that all that are as large have the share p of the sum. Positive floats have the order of their
// bits: it is found bit by bit.
float least_of_share(const std::vector<float>& weights, double p) {
    auto sum_from = [&weights](float least) {
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (size_t i = 0; i < weights.size(); i++) sum += weights[i] >= least ? weights[i] : 0.0f;
        return sum;
    };
    const double wanted = p * sum_from(0);
    int32_t bits = 0;
    for (int32_t bit = 1 << 29; bit; bit >>= 1) {  // of 1.0f and what is below
        const int32_t tried = bits | bit;
        if (sum_from(read<float>(&tried)) >= wanted) bits = tried;
    }
    return read<float>(&bits);
}

// Logits that differ may have equal weights, as in heat all have: of those with the least weight that is kept for the share
// p, the weights of logits below the last one that it takes become 0.
template <class Logit>
void part_equals(Logit logit, std::vector<float>& weights, float least, double p) {
    int64_t n_equal = 0;
#pragma omp simd reduction(+ : n_equal)
    for (size_t i = 0; i < weights.size(); i++) n_equal += weights[i] == least;
    if (n_equal < 2 || least <= 0) return;
    double sum = 0, above = 0;
    std::vector<float> equals;
    for (size_t i = 0; i < weights.size(); i++) {
        sum += weights[i];
        if (weights[i] > least) above += weights[i];
        if (weights[i] == least) equals.push_back(logit(i));
    }
    const double taken = std::min(std::max(std::ceil((p * sum - above) / least), 1.0), (double)n_equal);
    const auto last = equals.begin() + (int64_t)taken - 1;
    std::nth_element(equals.begin(), last, equals.end(), std::greater<float>());
    for (size_t i = 0; i < weights.size(); i++)
        if (weights[i] == least && logit(i) < *last) weights[i] = 0;
}

// A place; -1 where x holds what is no number. Without a random number in [0, 1) the largest, of equals the first.
int64_t draw_one(const float* x, int64_t n, const Filters& filters, const double* uniform) {
    std::vector<float> most;
    const int64_t n_nan = maxima(x, n, most);
    const auto highest = std::max_element(most.begin(), most.end());
    if (n_nan) return -1;
    if (!uniform) return std::find(x + (highest - most.begin()) * PART, x + n, *highest) - x;
    const float largest = *highest / filters.temperature;
    if (!std::isfinite(largest)) return -1;
    float bound = -INFINITY;  // after division by the temperature: what differs by rounding alone is kept with it
    if (const int64_t k = filters.top_k; k > 0 && k < n) bound = kth_largest(x, n, k, most) / filters.temperature;
    std::vector<int64_t> kept;
    places(x, n, most, [&](float value) { return value / filters.temperature >= bound; }, kept);
    std::vector<float> weights(kept.size());
    auto logit = [&](size_t i) { return x[kept[i]] / filters.temperature; };
    for (size_t i = 0; i < kept.size(); i++) weights[i] = logit(i) - largest;
    float* const at = weights.data();
#pragma omp simd
    for (int64_t i = 0; i < (int64_t)kept.size(); i++) at[i] = at[i] < -87.0f ? 0.0f : exponential(at[i]);
    float least = 0;
    if (filters.top_p < 1) {
        least = least_of_share(weights, filters.top_p);
        part_equals(logit, weights, least, filters.top_p);
    }
    least = std::max(least, (float)filters.min_p);  // the largest weight is 1
    double total = 0, sum = 0;
    for (float weight : weights) total += weight >= least ? weight : 0.0f;
    size_t i = 0;
    for (; i + 1 < kept.size(); i++)
        if (weights[i] >= least && (sum += weights[i]) > *uniform * total) break;
    while (i > 0 && (weights[i] < least || weights[i] == 0)) i--;
    return kept[i];
}

}  // namespace

extern "C" {

// One place of n numbers in each row; uniform has a random number for each, or is null.
void draw(const float* x, int64_t n_rows, int64_t n, float temperature, int64_t top_k, double top_p, double min_p,
          const double* uniform, int64_t* places) {
    const Filters filters = {temperature, top_k, top_p, min_p};
#pragma omp parallel for if (n_rows > 1)
    for (int64_t row = 0; row < n_rows; row++)
        places[row] = draw_one(x + row * n, n, filters, uniform ? uniform + row : nullptr);
}
}
