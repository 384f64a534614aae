// AddNorm: y = norm(x + residual) in fp32, row by row: LayerNorm, or RMSNorm as decoders have it,
// whose sum x + residual is wanted too.
// Not: an ONNX operator (ort_add_norm.cc wraps this one). All arrays belong to the caller.
#ifndef CSRM_KERNELS_ADD_NORM_H_
#define CSRM_KERNELS_ADD_NORM_H_

#include <cstddef>
#include <cstdint>

#include "csrm/status.h"
#include "isa.h"

namespace csrm::kernels {

// M = n_rows, N = n_columns. Dense row-major arrays.
struct AddNormParams {
  const float* x;         // [M, N]
  const float* residual;  // [M, N]; null: nothing is added
  const float* weight;    // [N]
  const float* bias;      // [N]; null of RMSNorm, and of it alone
  float* y;               // [M, N] out; may be x or residual
  int64_t n_rows, n_columns;
  float epsilon;         // added to the variance (biased) or mean square; finite, >= 0
  bool is_rms = false;   // z / sqrt(mean(z^2) + epsilon) * weight of z = x + residual
  float* sum = nullptr;  // [M, N] out: x + residual, if not null; may be either of them, not y
};

// Errors: BadArgument (an argument outside the ranges above), Unsupported (isa).
Status check_add_norm(const AddNormParams& params, Isa isa);

// Into how many tasks the work is cut; it does not depend on any thread. `params` checked.
size_t add_norm_tasks(const AddNormParams& params) noexcept;

// Task i: together, in any order and on any threads, the tasks write all of y. A row's result
// depends on that row alone, to the bit. Allocates nothing.
void run_add_norm_task(const AddNormParams& params, Isa isa, size_t i) noexcept;

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_ADD_NORM_H_
