// Argument checks of PrefixAttention. Not: arithmetic (prefix_attention_cpu.cc and _tile.h).
// Arguments come from ort_prefix_attention.cc or a C++ caller. Messages name numbers, never data.
#include "prefix_attention.h"

#include <cmath>
#include <string>

namespace csrm::kernels {
namespace {

Status bad_argument(const std::string& message) {
  return {Code::kBadArgument, "PrefixAttention: " + message};
}

Status check_sizes(const PrefixAttentionParams& p) {
  if (p.n_batch < 0 || p.n_queries < 0 || p.n_tokens < 0 || p.n_prefix < 0) {
    return bad_argument("a batch, query, token or prefix count is negative; give sizes >= 0");
  }
  if (p.n_heads < 1 || p.n_kv_heads < 1 || p.n_heads % p.n_kv_heads != 0) {
    return bad_argument(std::to_string(p.n_heads) + " heads over " + std::to_string(p.n_kv_heads) +
                        " heads of keys; both must be >= 1 and the first a multiple of the other");
  }
  if (p.head_dim < 1) {
    return bad_argument("head_dim is " + std::to_string(p.head_dim) + "; it must be >= 1");
  }
  if (p.layer < 0 || p.layer >= p.n_layers) {
    return bad_argument("layer is " + std::to_string(p.layer) + "; the prefix has " +
                        std::to_string(p.n_layers) + " layers");
  }
  if (!std::isfinite(p.scale)) return bad_argument("scale is not finite");
  return Status::success();
}

Status check_columns(const char* name, int64_t offset, int64_t n, int64_t width) {
  if (offset >= 0 && offset <= width - n) return Status::success();
  return bad_argument(std::string(name) + " is " + std::to_string(offset) + " and " +
                      std::to_string(n) + " columns are read; the tensor has " +
                      std::to_string(width));
}

Status check_pointers(const PrefixAttentionParams& p) {
  const bool has_queries = p.n_batch * p.n_queries == 0 || (p.query && p.visible && p.context);
  const bool has_keys = p.n_batch * p.n_tokens == 0 || p.key_value;
  const bool has_prefix = p.n_prefix == 0 || (p.prefix_key && p.prefix_value);
  if (has_queries && has_keys && has_prefix) return Status::success();
  return bad_argument("a pointer is null; give every array of PrefixAttentionParams");
}

Status check_visible(const PrefixAttentionParams& p) {
  for (int64_t i = 0; i < p.n_batch * p.n_queries; ++i) {
    if (p.visible[i] >= 0 && p.visible[i] <= p.n_tokens) continue;
    return bad_argument("visible[" + std::to_string(i / p.n_queries) + ", " +
                        std::to_string(i % p.n_queries) + "] is " + std::to_string(p.visible[i]) +
                        "; rows have " + std::to_string(p.n_tokens) +
                        " tokens; give a number from 0 to that");
  }
  return Status::success();
}

}  // namespace

Status check_prefix_attention(const PrefixAttentionParams& p, Isa isa) {
  if (Status status = check_sizes(p); !status.ok()) return status;
  const int64_t own_width = p.n_kv_heads * p.head_dim;
  for (Status status :
       {check_columns("query_offset", p.query_offset, p.n_heads * p.head_dim, p.query_width),
        check_columns("key_offset", p.key_offset, own_width, p.key_value_width),
        check_columns("value_offset", p.value_offset, own_width, p.key_value_width),
        check_pointers(p)}) {
    if (!status.ok()) return status;
  }
  if (Status status = check_visible(p); !status.ok()) return status;
  return check_isa("PrefixAttention", isa);
}

}  // namespace csrm::kernels
