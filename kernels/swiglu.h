// SwiGlu: y = silu(gate) * up in fp32, row by row, of gate and up as one linear layer leaves them.
// Not: an ONNX operator (ort_swiglu.cc wraps this one) and not the layer. All arrays belong to the
// caller.
#ifndef CSRM_KERNELS_SWIGLU_H_
#define CSRM_KERNELS_SWIGLU_H_

#include <cstddef>
#include <cstdint>

#include "csrm/status.h"
#include "isa.h"

namespace csrm::kernels {

// M = n_rows, N = n_columns. Dense row-major arrays.
struct SwiGluParams {
  const float* x;  // [M, 2 * N]: gate, then up
  float* y;        // [M, N] out: gate / (1 + exp(-gate)) * up
  int64_t n_rows, n_columns;
};

// Errors: BadArgument (an argument outside the ranges above), Unsupported (isa).
Status check_swiglu(const SwiGluParams& params, Isa isa);

// Into how many tasks the work is cut; it does not depend on any thread. `params` checked.
size_t swiglu_tasks(const SwiGluParams& params) noexcept;

// Task i: together, in any order and on any threads, the tasks write all of y. A row's result
// depends on that row alone, to the bit. Allocates nothing.
void run_swiglu_task(const SwiGluParams& params, Isa isa, size_t i) noexcept;

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_SWIGLU_H_
