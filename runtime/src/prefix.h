// Prefix: encoded blocks kept as per-layer keys and values, and the ways to make one.
// Not: where prefixes are kept (prefix_cache.h) or encoded (prefix_encoder.h). A Prefix in the
// cache is immutable and shared; one being built belongs to a single thread.
#ifndef CSRM_SRC_PREFIX_H_
#define CSRM_SRC_PREFIX_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "engine.h"
#include "manifest.h"
#include "render.h"

namespace csrm {

// What a prefix was made of: token ids of its blocks, where each block ends and its segment. All
// matter: the same ids cut elsewhere attend differently, and as another turn embed differently.
struct PrefixTokens {
  std::vector<int32_t> ids;
  std::vector<uint32_t> ends;
  std::vector<int32_t> segments = {};  // by block; empty stands for 0 everywhere

  void append(const Block& block);
  // True if the first `n_blocks` blocks of both are the same; false if either has fewer.
  bool same_leading(const PrefixTokens& other, size_t n_blocks) const;
  bool operator==(const PrefixTokens& other) const {
    return ids == other.ids && ends == other.ends && segments == other.segments;
  }
};

// What the head read of a block; not checked, and unknown where the head was not asked.
struct BlockScore {
  bool is_known = false;
  float reward = 0.0f;
  float compliance = 0.0f;
};

// Keys or values as the engine gave them: numbers of ModelShape::kv_type, which csrm moves as
// bytes.
using Numbers = std::vector<unsigned char>;

struct Prefix {
  PrefixTokens tokens;             // empty for a prefix private to one conversation
  size_t n_tokens = 0;             // P
  Numbers key;                     // [L, Hkv, P, D]
  Numbers value;                   // [L, Hkv, P, D]
  std::vector<BlockScore> scores;  // of the turns' blocks behind a config's; else empty
  DevicePrefixSlot device_copy;    // of key and value; emptied when they change
};

// Where the tokens and keys of a prefix are cut: after `n_blocks` blocks, which are `n_tokens`.
struct PrefixCut {
  size_t n_blocks;
  size_t n_tokens;
};

// The first `n_tokens` tokens of row `row` of an engine output [B, L, Hkv, row_tokens, D].
struct EncodedRow {
  const void* key;
  const void* value;
  size_t row;
  size_t row_tokens;
  size_t n_tokens;
};

// A prefix with the tokens of `encoded` alone.
Prefix prefix_from_row(const ModelShape& shape, const EncodedRow& encoded);

// `parts` one after another, token ids included. No part may be null.
Prefix join_prefixes(const ModelShape& shape,
                     const std::vector<std::shared_ptr<const Prefix>>& parts);

// Those of the tokens of `prefix` whose places are `places`, in that order, without token ids.
Prefix picked_tokens(const ModelShape& shape, const Prefix& prefix,
                     const std::vector<size_t>& places);

// Appends the tokens of `encoded` to `prefix` in place. Reserve key and value first to grow
// without reallocation; the heads are moved apart within the buffer either way.
void append_row(const ModelShape& shape, const EncodedRow& encoded, Prefix* prefix);

// A copy of the part of `prefix` before `cut`, with room for `capacity` tokens; scores are left
// out.
Prefix leading_part(const ModelShape& shape, const Prefix& prefix, const PrefixCut& cut,
                    size_t capacity);

// A copy of all keys and values of `prefix`, without token ids, with room for `capacity` tokens.
Prefix same_keys(const ModelShape& shape, const Prefix& prefix, size_t capacity);

// Makes each key and value of `a` the mean of those of `a` and `b`, which have the same tokens.
void average(const ModelShape& shape, const Prefix& b, Prefix* a);

// Number `i` of a prefix's key or value.
float number_at(const ModelShape& shape, const Numbers& numbers, size_t i);

// Gives `prefix` room for `n_tokens` tokens, moving it only if it has less.
void reserve_tokens(const ModelShape& shape, size_t n_tokens, Prefix* prefix);

// Lets `input` read `prefix`, which must outlive the engine call.
void set_prefix(const Prefix& prefix, EncodeInput* input);

// False if any key or value is NaN or infinite. A key of -inf would silently hide its token, so
// this is checked before a prefix is used and not left to show in the reward.
bool is_finite(const ModelShape& shape, const Prefix& prefix);

// The same of one row of an engine output, before it is appended to anything.
bool is_finite(const ModelShape& shape, const EncodedRow& encoded);

}  // namespace csrm

#endif  // CSRM_SRC_PREFIX_H_
