// What the checks and timings of the CUDA kernels share: device memory with guards, random tensors,
// errors and their bounds, the list of checks. Not: a check (check_*.cc) or a kernel.
// A program of this folder runs on one thread and one device.
#ifndef CSRM_TESTS_CPP_CUDA_HARNESS_H_
#define CSRM_TESTS_CPP_CUDA_HARNESS_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "csrm/status.h"
#include "kernels/cuda/dtype.h"

namespace csrm_test {

using csrm::kernels::cuda::DType;

constexpr DType kAllTypes[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16};

// Standard normal numbers and small integers, the same on every machine for one seed.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  float normal();
  int below(int n);  // in [0, n); n >= 1
  std::vector<float> normals(size_t n, float size = 1, float offset = 0);

 private:
  uint64_t next();
  uint64_t state_;
};

// The seed of a case: its name and the program's --seed.
uint64_t seed_of(const std::string& name);
void set_seed(uint64_t seed);

// `values` as the kernel will see them: rounded to dtype and widened again.
void round_to(DType dtype, std::vector<float>& values);

// Device memory between two guards of 256 bytes, which guards_intact() finds unharmed or not; all
// of it is 0xFF (NaN in every type) until something is copied to it. Errors are kept in
// cuda_error().
class DeviceArray {
 public:
  explicit DeviceArray(size_t n_bytes, size_t shift = 0);  // shift: moves data() off its alignment
  DeviceArray(const std::vector<float>& values, DType dtype, size_t shift = 0);
  explicit DeviceArray(const std::vector<int64_t>& values);
  ~DeviceArray();
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  void* data() const;  // null if it holds no bytes
  template <typename T>
  T* as() const {
    return static_cast<T*>(data());
  }
  size_t size() const { return n_bytes_; }
  void poison();
  std::vector<unsigned char> bytes() const;
  std::vector<float> floats(DType dtype) const;
  bool guards_intact() const;

 private:
  void copy_from(const void* values);
  unsigned char* memory_ = nullptr;
  size_t n_bytes_, shift_;
};

// The first CUDA error that an array or synchronised() met, and none after it is asked for.
cudaError_t take_cuda_error();
// Waits for the device; false after an error.
bool synchronised();

// ||out - reference|| / ||reference||; infinite where one is NaN and the other is not or, against a
// reference of zeros, where `out` is not all zeros.
double relative_error(const std::vector<float>& out, const std::vector<float>& reference);
// Greatest |out - reference|, with the same rule for NaN.
double absolute_error(const std::vector<float>& out, const std::vector<float>& reference);

// What the checks found. Failures are printed at once, the worst error of each group at the end.
class Report {
 public:
  explicit Report(bool is_verbose) : is_verbose_(is_verbose) {}
  // `group`: kernel, version and type. Fails if error > bound, or is NaN.
  void error(const std::string& group, const std::string& name, double error, double bound);
  void expect(const std::string& name, bool condition, const std::string& what);
  void succeeds(const std::string& name, const csrm::Status& status);
  void print_groups() const;
  int n_checks = 0, n_failures = 0;

 private:
  struct Group {
    int n = 0;
    double worst = 0, bound = 0;  // worst: of error / bound
    std::string name;
  };
  bool is_verbose_;
  std::map<std::string, Group> groups_;
};

// One case in one type: an element of the list that main() walks.
struct Check {
  std::string name;
  std::function<void(Report&)> run;
};

// is_small: only cases that compute-sanitizer gets through in seconds.
std::vector<Check> attention_checks(bool is_small);
std::vector<Check> row_checks(bool is_small);      // RewardHead and AddNorm
std::vector<Check> decoder_checks(bool is_small);  // Rope, SwiGlu and KeysValues

// Times all kernels and prints a table. False if CUDA failed.
bool run_bench();

}  // namespace csrm_test

#endif  // CSRM_TESTS_CPP_CUDA_HARNESS_H_
