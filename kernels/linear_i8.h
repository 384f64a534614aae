// LinearI8: y = x W + b in integers, then GELU if asked; int8 weights, rows of x rounded to
// integers by a scale of their own. Every version gives the same bits on every machine.
//
// For a row x of K values, with L = levels, in fp32 with one rounding per operation:
//   m = max |x[k]|; s = m / L; q[k] = round(x[k] * (L / m)), ties to even
//   sum[n] = q . values[:, n], exact
//   y[n] = float(sum[n]) * (s * scale[n]) + bias[n], then GELU
// A row with m < 1e-30 has s = 0 and q = 0; one with a value that is not finite gives NaN.
// Not: an ONNX operator (ort_linear_i8.cc wraps this one) and not fp32 arithmetic (linear.h).
// Weights come from the caller's tensors and are copied; x, y and scratch stay the caller's.
#ifndef CSRM_KERNELS_LINEAR_I8_H_
#define CSRM_KERNELS_LINEAR_I8_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "csrm/status.h"
#include "isa.h"
#include "linear_cut.h"
#include "weight_memory.h"

namespace csrm::kernels {

struct LinearI8Version;

// Bits of an activation beside its sign: 8 bits fit one step of dot products of bytes, 12 need
// those of 16-bit numbers or two of bytes, which take twice as long.
constexpr int64_t kByteLevels = 127;
constexpr int64_t kWordLevels = 2047;
constexpr int64_t kMaxLinearI8Depth = 8192;  // K, so that no sum overflows 32 bits

// K = n_in, N = n_out. Dense row-major arrays, only read, needed no longer than LinearI8::make().
struct LinearI8Params {
  const int8_t* values;  // [K, N]
  const float* scale;    // [N], one per output channel
  const float* bias;     // [N]
  int64_t n_in, n_out;   // >= 1; n_in at most kMaxLinearI8Depth
  int64_t levels;        // kByteLevels or kWordLevels
  bool has_gelu;         // GELU(v) = v * (1 + erf(v / sqrt(2))) / 2 of every output
};

// Whether this CPU runs `isa` of LinearI8: kAvx512 needs VNNI here.
bool linear_i8_supported(Isa isa) noexcept;
// Whether kBest is that version or a wider one, which multiply faster than fp32 does.
bool linear_i8_has_vnni() noexcept;

// One layer, ready to run. Immutable: any number of threads may run it at once.
class LinearI8 {
 public:
  // Packs the weights, 1 byte each, into `memory`, which has packed_size() bytes left; null: into
  // memory of its own. Errors: BadArgument (sizes, pointers), Unsupported (isa).
  static Result<LinearI8> make(const LinearI8Params& params, Isa isa = Isa::kBest,
                               WeightMemory* memory = nullptr);
  // Bytes of what make() packs; 0 of params that it refuses.
  static size_t packed_size(const LinearI8Params& params, Isa isa) noexcept;

  int64_t n_in() const noexcept { return n_in_; }
  int64_t n_out() const noexcept { return n_out_; }

  // Bytes of scratch that n_rows rows of x need, 64-byte aligned.
  size_t scratch_size(int64_t n_rows) const noexcept;
  // First all tasks i < n_round_tasks of round_task: they write scratch from x [n_rows, K]. Then
  // all i < n_tasks of run_task: they write y [n_rows, N] from scratch. Tasks of one kind are
  // independent: in any order and on any threads. Allocates nothing.
  size_t n_round_tasks(int64_t n_rows) const noexcept;
  void round_task(const float* x, int64_t n_rows, void* scratch, size_t i) const noexcept;
  size_t n_tasks(int64_t n_rows) const noexcept;
  void run_task(const void* scratch, int64_t n_rows, float* y, size_t i) const noexcept;

  // The same in other pieces: the rows [first_row, end_row) of all n_rows are rounded, and part i
  // of n_parts of the columns is written, for any n_parts >= 1.
  void round_rows(const float* x, int64_t n_rows, void* scratch, int64_t first_row,
                  int64_t end_row) const noexcept;
  void run_columns(const void* scratch, int64_t n_rows, float* y, int64_t i,
                   int64_t n_parts) const noexcept;

 private:
  LinearI8() = default;
  LinearI8(const LinearI8Params& params, Isa isa) noexcept;
  // `values` [K, N] in the version's panels, and what its sums start from.
  void pack(const int8_t* values);
  int64_t n_columns() const noexcept;  // of all panels
  int64_t n_values() const noexcept;
  // Bytes of the scales in front of the rounded rows in scratch.
  static size_t scales_size(int64_t n_rows) noexcept;
  void run(const void* scratch, int64_t n_rows, float* y, const LinearPart& part) const noexcept;

  const LinearI8Version* version_ = nullptr;
  // As LinearI8Block describes them.
  std::shared_ptr<float> scale_, bias_;
  std::shared_ptr<int8_t> values_;
  std::shared_ptr<int32_t> start_;
  int64_t n_in_ = 0, n_out_ = 0, levels_ = 0, n_panels_ = 0, n_groups_ = 0, row_size_ = 0;
  bool has_gelu_ = false;
};

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_LINEAR_I8_H_
