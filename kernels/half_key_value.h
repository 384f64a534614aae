// HalfKeyValue: the keys and values among a layer's states, in half precision and in the order of a
// prefix, as a cache keeps them. Attention rounds what it reads to the same bits (half.h).
// Not: an ONNX operator (ort_half_key_value.cc wraps this one). All arrays belong to the caller.
#ifndef CSRM_KERNELS_HALF_KEY_VALUE_H_
#define CSRM_KERNELS_HALF_KEY_VALUE_H_

#include <cstddef>
#include <cstdint>

#include "csrm/status.h"
#include "isa.h"

namespace csrm::kernels {

// B = n_batch, T = n_tokens, D = head_dim. Dense row-major arrays.
struct HalfKeyValueParams {
  const float* states;  // [B, T, width], n_kv_heads * D columns from each offset on
  uint16_t* key;        // [B, n_kv_heads, T, D] out; NaN for what is too large (half.h)
  uint16_t* value;      // [B, n_kv_heads, T, D] out
  int64_t n_batch, n_tokens;
  int64_t n_kv_heads, head_dim;
  int64_t width, key_offset, value_offset;
};

// Errors: BadArgument (an argument outside the ranges above), Unsupported (isa).
Status check_half_key_value(const HalfKeyValueParams& params, Isa isa);

// Into how many tasks the work is cut; it does not depend on any thread. `params` checked.
size_t half_key_value_tasks(const HalfKeyValueParams& params) noexcept;

// Task i: together, in any order and on any threads, the tasks write all of key and value. The bits
// are those of to_half(), whatever the version. Allocates nothing.
void run_half_key_value_task(const HalfKeyValueParams& params, Isa isa, size_t i) noexcept;

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_HALF_KEY_VALUE_H_
