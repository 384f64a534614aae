// The keys and values of a block, where they lie or in a copy that the tiles of a task share.
// Included by prefix_attention_tile.h alone, after the header that defines CSRM_TARGET and Vector.
// Not: what is computed with them.
//
// Keys and values of half precision are widened into the copy; of the row's own it holds what they
// are in half precision. So a key has the same bits whether it is the prefix's or the row's.
#include <algorithm>
#include <cstdint>

#include "half.h"
#include "prefix_attention_block.h"

namespace csrm::kernels {
namespace {

using Register = Vector::Register;
constexpr int64_t kWidth = Vector::kWidth;
constexpr int64_t kKeyBlock = 64;

// Keys that lie at equal distances; one block has up to two such parts, prefix and own row.
struct Span {
  const float* key;
  const float* value;
  int64_t stride;
  int64_t n;
};

// Up to 3 vectors of rows of one batch entry. Arrays are [.., n_vectors * kWidth].
struct Tile {
  float* query;    // [D] times scale and log2(e)
  float* sums;     // [D] of weight * value
  float* highest;  // of the scores
  float* total;    // of the weights
  int64_t batch, first_row, n_rows;
  int64_t n_vectors;
  int64_t least_seen, most_seen;  // keys, over its rows
};

// to[i] = from[i], which is of half precision.
CSRM_TARGET void widen(const uint16_t* from, int64_t n, float* to) {
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) Vector::store(to + i, Vector::load_half(from + i));
  for (; i < n; ++i) to[i] = from_half(from[i]);
}

// to[i] = from[i] as it is in half precision.
CSRM_TARGET inline void round_half(const float* from, int64_t n, float* to) {
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    Vector::store(to + i, Vector::through_half(Vector::load(from + i)));
  }
  for (; i < n; ++i) to[i] = from_half(to_half(from[i]));
}

// Those of the keys [start, start + 64) of a head that are the prefix's.
int64_t prefix_part(const PrefixAttentionParams& p, int64_t start) {
  return std::clamp<int64_t>(p.n_prefix - start, 0, kKeyBlock);
}

// They, where they lie or widened into `copies`.
CSRM_TARGET Span prefix_keys(const PrefixAttentionParams& p, const AttentionTask& task,
                             int64_t start, float* copies) {
  const int64_t n = prefix_part(p, start);
  if (n == 0) return {};
  const int64_t at = ((p.layer * p.n_kv_heads + task.kv_head) * p.n_prefix + start) * p.head_dim;
  if (!p.is_half) {
    return {static_cast<const float*>(p.prefix_key) + at,
            static_cast<const float*>(p.prefix_value) + at, p.head_dim, n};
  }
  float* values = copies + kKeyBlock * p.head_dim;
  widen(static_cast<const uint16_t*>(p.prefix_key) + at, n * p.head_dim, copies);
  widen(static_cast<const uint16_t*>(p.prefix_value) + at, n * p.head_dim, values);
  return {copies, values, p.head_dim, n};
}

// The keys of the row of tiles[i] among [start, start + 64), as far as its batch entry's tiles see
// them. Lines that lie a row apart push each other out of the cache, so several tiles share a copy,
// which stands behind that of the prefix's keys.
CSRM_TARGET Span own_keys(const PrefixAttentionParams& p, const AttentionTask& task,
                          const Tile* tiles, int64_t n_tiles, int64_t i, int64_t start,
                          float* copies) {
  const int64_t first = std::max<int64_t>(start - p.n_prefix, 0);
  const int64_t token = tiles[i].batch * p.n_tokens + first;
  const float* own = p.key_value + token * p.key_value_width + task.kv_head * p.head_dim;
  Span span{own + p.key_offset, own + p.value_offset, p.key_value_width, 0};
  int64_t n_readers = 0, end = 0;
  for (int64_t j = i; j < n_tiles && tiles[j].batch == tiles[i].batch; ++j) {
    if (tiles[j].most_seen > p.n_prefix + first) ++n_readers;
    end = std::max(end, std::min(tiles[j].most_seen, start + kKeyBlock));
  }
  span.n = std::max<int64_t>(end - p.n_prefix - first, 0);
  if (n_readers < 2 && !p.is_half) return span;
  float* keys = copies + prefix_part(p, start) * p.head_dim;
  float* values = keys + kKeyBlock * p.head_dim;
  for (int64_t k = 0; k < span.n; ++k) {
    const float* const from[2] = {span.key + k * span.stride, span.value + k * span.stride};
    float* const to[2] = {keys + k * p.head_dim, values + k * p.head_dim};
    for (int part = 0; part < 2; ++part) {
      if (p.is_half) {
        round_half(from[part], p.head_dim, to[part]);
      } else {
        std::copy_n(from[part], p.head_dim, to[part]);
      }
    }
  }
  return {keys, values, p.head_dim, span.n};
}

}  // namespace
}  // namespace csrm::kernels
