// Linear: y = x W + b, then GELU if asked, in fp32; weights are packed once, as they are stored.
// Not: an ONNX operator (ort_linear.cc wraps this one) and not int8 arithmetic: int8 is how weights
// are stored and read, every product is one of floats. Weights come from the caller's tensors and
// are copied; x and y stay the caller's.
#ifndef CSRM_KERNELS_LINEAR_H_
#define CSRM_KERNELS_LINEAR_H_

#include <cstddef>
#include <cstdint>

#include "aligned.h"
#include "csrm/status.h"
#include "isa.h"

namespace csrm::kernels {

struct LinearVersion;

// K = n_in, N = n_out. Dense row-major arrays, only read, needed no longer than Linear::make().
// Either `values` and `scale` (the weight is values * scale) or `dense` is given.
struct LinearParams {
  const int8_t* values;  // [K, N]
  const float* scale;    // [N], one per output channel
  const float* dense;    // [K, N]
  const float* bias;     // [N]; null: none is added
  int64_t n_in, n_out;   // >= 1
  bool has_gelu;         // GELU(v) = v * (1 + erf(v / sqrt(2))) / 2 of every output
};

// One layer, ready to run. Immutable: any number of threads may run it at once.
class Linear {
 public:
  // Packs the weights, 1 byte each (4 of `dense`). Errors: BadArgument (sizes, pointers),
  // Unsupported (isa).
  static Result<Linear> make(const LinearParams& params, Isa isa = Isa::kBest);

  int64_t n_in() const noexcept { return n_in_; }
  int64_t n_out() const noexcept { return n_out_; }

  // Into how many tasks the work on n_rows >= 0 rows is cut; it does not depend on any thread.
  size_t n_tasks(int64_t n_rows) const noexcept;
  // Task i < n_tasks(n_rows) of y [n_rows, N] = f(x [n_rows, K]). Tasks are independent: all of
  // them, in any order and on any threads, write all of y. A row's result depends on that row
  // alone, to the bit, and is NaN or infinite where the row makes it so. Allocates nothing.
  void run_task(const float* x, int64_t n_rows, float* y, size_t i) const noexcept;

 private:
  Linear() = default;
  // N values followed by zeros up to whole panels.
  Aligned<float> padded(const float* values) const;
  // Panels of a weight [K, N].
  template <typename T>
  Aligned<T> packed(const T* weight) const;

  const LinearVersion* version_ = nullptr;
  // As LinearBlock describes them.
  Aligned<float> floats_, scale_, bias_;
  Aligned<int8_t> int8s_;
  int64_t n_in_ = 0, n_out_ = 0, n_panels_ = 0;
  bool has_gelu_ = false;
};

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_LINEAR_H_
