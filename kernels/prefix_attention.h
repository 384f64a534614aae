// PrefixAttention: every query over a shared prefix and its own row, in one pass, computed in fp32,
// or with products of bfloat16 where that is allowed and a version for it is there.
// Not: an ONNX operator (ort_prefix_attention.cc wraps this one) and not the projections around it.
// All arrays belong to the caller; the prefix and the rows are read in place, through strides.
#ifndef CSRM_KERNELS_PREFIX_ATTENTION_H_
#define CSRM_KERNELS_PREFIX_ATTENTION_H_

#include <cstddef>
#include <cstdint>

#include "csrm/status.h"
#include "isa.h"
#include "packed_prefix.h"

namespace csrm::kernels {

// B = n_batch, Q = n_queries, T = n_tokens, P = n_prefix, D = head_dim. Dense row-major arrays.
// Query head h reads the keys and values of head h / (n_heads / n_kv_heads).
struct PrefixAttentionParams {
  const float* query;        // [B, Q, query_width], n_heads * D columns from query_offset on
  const float* key_value;    // [B, T, key_value_width], n_kv_heads * D from each offset on
  const void* prefix_key;    // [n_layers, n_kv_heads, P, D], read at `layer`: floats, or uint16_t
  const void* prefix_value;  // [n_layers, n_kv_heads, P, D]: if is_half
  const int64_t* visible;    // [B, Q] own-row tokens the query sees, the first ones; in [0, T]
  float* context;            // [B, Q, n_heads * D] out; zeros where a query sees nothing
  int64_t n_batch, n_queries, n_tokens, n_prefix;
  int64_t n_heads, n_kv_heads, head_dim;
  int64_t n_layers, layer;
  int64_t query_width, query_offset;
  int64_t key_value_width, key_offset, value_offset;
  float scale;   // of the products of queries and keys; finite
  bool is_half;  // the prefix is of half precision (half.h), and own keys and values are rounded to
                 // it before they are read: it is the same whether a token lies here or there
  // Of this prefix, in a call for which its begin() was true; read if products are of bfloat16 and
  // the prefix is not half. May be null.
  PackedPrefix* packed;
  bool is_bf16;  // products may be those of bfloat16, with sums in fp32: see has_bf16_products()
};

// Errors: BadArgument (an argument outside the ranges above), Unsupported (isa).
Status check_prefix_attention(const PrefixAttentionParams& params, Isa isa);

// True if products will be those of bfloat16: `params` allows them, head_dim is a multiple of 32,
// and resolved_isa(isa) is kAmx on a CPU that has them. Else all is fp32.
bool has_bf16_products(const PrefixAttentionParams& params, Isa isa) noexcept;

// Into how many tasks the work is cut; it does not depend on any thread. `params` checked.
size_t prefix_attention_tasks(const PrefixAttentionParams& params, Isa isa) noexcept;

// Task i: together, in any order and on any threads, the tasks write all of `context`. The result
// of a query depends, to the bit, on its own vector and the sequence of keys and values it sees
// (prefix, then own row) alone. False, with nothing written, if the calling thread's scratch memory
// cannot be had; it is kept for the thread's next task.
bool run_prefix_attention_task(const PrefixAttentionParams& params, Isa isa, size_t i) noexcept;

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_PREFIX_ATTENTION_H_
