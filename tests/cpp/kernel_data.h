// Inputs for the kernels' tests: random numbers that are the same on every machine, in memory that
// ends where the array ends, and tasks run in turn or by several threads.
// Not: a definition of any kernel.
#ifndef CSRM_TESTS_CPP_KERNEL_DATA_H_
#define CSRM_TESTS_CPP_KERNEL_DATA_H_

#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

namespace csrm_test {

// `n` floats that begin one float behind an aligned address, so that a vector load which needs
// alignment or reads past the end is found.
class Floats {
 public:
  explicit Floats(int64_t n, float value = 0.0f) : memory_(static_cast<size_t>(n) + 1, value) {}

  int64_t size() const { return static_cast<int64_t>(memory_.size()) - 1; }
  float* data() { return memory_.data() + 1; }
  const float* data() const { return memory_.data() + 1; }
  float& operator[](int64_t i) { return memory_[static_cast<size_t>(i) + 1]; }
  float operator[](int64_t i) const { return memory_[static_cast<size_t>(i) + 1]; }
  // To the bit, signs of zeros and payloads of NaN included.
  bool equals(const Floats& other) const {
    return size() == other.size() &&
           std::memcmp(data(), other.data(), sizeof(float) * static_cast<size_t>(size())) == 0;
  }

 private:
  std::vector<float> memory_;
};

class Random {
 public:
  explicit Random(uint32_t seed) : bits_(seed) {}

  // An integer in [0, n); n >= 1.
  int64_t below(int64_t n) { return static_cast<int64_t>(bits_() % static_cast<uint64_t>(n)); }
  // Uniform in [-size, size]; 1.7 gives a variance of about 1.
  float number(float size = 1.7f) {
    return size * (static_cast<float>(bits_() >> 8) / 8388607.5f - 1.0f);
  }
  Floats floats(int64_t n, float size = 1.7f, float offset = 0.0f) {
    Floats made(n);
    for (int64_t i = 0; i < n; ++i) made[i] = offset + number(size);
    return made;
  }
  std::vector<int64_t> integers(int64_t n, int64_t first, int64_t last) {
    std::vector<int64_t> made(static_cast<size_t>(n));
    for (int64_t& one : made) one = first + below(last - first + 1);
    return made;
  }

 private:
  std::mt19937 bits_;
};

// The largest difference; infinite if one of them is NaN and the other is not.
inline double distance(const Floats& found, const std::vector<double>& expected) {
  double most = found.size() == static_cast<int64_t>(expected.size()) ? 0 : INFINITY;
  for (size_t i = 0; i < expected.size() && std::isfinite(most); ++i) {
    const double one = found[static_cast<int64_t>(i)];
    if (std::isnan(one) && std::isnan(expected[i])) continue;
    const double apart = std::fabs(one - expected[i]);
    most = std::isnan(apart) ? INFINITY : std::fmax(most, apart);
  }
  return most;
}

// task(i) for every i < n_tasks: in turn, or from the last to the first by `n_threads` at once.
template <typename Task>
void run_tasks(size_t n_tasks, int n_threads, const Task& task) {
  if (n_threads == 1) {
    for (size_t i = 0; i < n_tasks; ++i) task(i);
    return;
  }
  std::atomic<size_t> n_taken{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < n_threads; ++t) {
    threads.emplace_back([&] {
      for (size_t i = n_taken++; i < n_tasks; i = n_taken++) task(n_tasks - 1 - i);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace csrm_test

#endif  // CSRM_TESTS_CPP_KERNEL_DATA_H_
