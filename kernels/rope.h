// Rope: the first heads of every row turned by the row's position (rotary embedding, the halves of
// a head being the parts of complex numbers), after an RMSNorm of each head if asked; the columns
// behind them as they are, so that queries, keys and values of one linear layer stay together.
// Not: an ONNX operator (ort_rope.cc wraps this one). All arrays belong to the caller.
#ifndef CSRM_KERNELS_ROPE_H_
#define CSRM_KERNELS_ROPE_H_

#include <cstddef>
#include <cstdint>

#include "csrm/status.h"
#include "isa.h"

namespace csrm::kernels {

// The widest head: cosines and sines of a row live on the stack.
constexpr int64_t kMaxRopeDim = 1024;

// M = n_rows, N = n_columns, H = n_heads, D = head_dim. Dense row-major arrays.
struct RopeParams {
  const float* x;             // [M, N], the heads being its first H * D columns
  const int64_t* positions;   // [M]
  const float* frequencies;   // [D / 2] radians per position
  const float* weight;        // [H * D] of the RMSNorm over each head's D columns; null: no norm
  float* y;                   // [M, N] out; may be x
  int64_t n_rows, n_columns;  // N >= H * D
  int64_t n_heads, head_dim;  // H >= 1; D even, 2 to kMaxRopeDim
  float epsilon;              // of the norm, added to the mean square; finite, >= 0
};

// Errors: BadArgument (an argument outside the ranges above), Unsupported (isa).
Status check_rope(const RopeParams& params, Isa isa);

// Into how many tasks the work is cut; it does not depend on any thread. `params` checked.
size_t rope_tasks(const RopeParams& params) noexcept;

// Task i: together, in any order and on any threads, the tasks write all of y. A row's result
// depends on that row and its position alone, to the bit. Allocates nothing.
void run_rope_task(const RopeParams& params, Isa isa, size_t i) noexcept;

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_ROPE_H_
