// Copies between the layouts [B, L, Hkv, T, D] (engine) and [L, Hkv, P, D] (prefix), in bytes.
#include "prefix.h"

#include <algorithm>
#include <cstring>

#include "kernels/half.h"

namespace csrm {
namespace {

using Byte = Numbers::value_type;

// `Bits` are those of a number, kExponent those of its exponent, all set where it is not finite.
template <typename Bits, Bits kExponent>
bool all_finite(const Byte* numbers, size_t n_bytes) {
  // Integer operations on the exponent vectorise; a float comparison with a branch does not.
  uint32_t n_bad = 0;
  for (size_t i = 0; i < n_bytes; i += sizeof(Bits)) {
    Bits bits;
    std::memcpy(&bits, numbers + i, sizeof(bits));
    n_bad += (bits & kExponent) == kExponent ? 1u : 0u;
  }
  return n_bad == 0;
}

bool all_finite(const ModelShape& shape, const Byte* numbers, size_t n_bytes) {
  return shape.kv_type == KvType::kHalf ? all_finite<uint16_t, 0x7c00>(numbers, n_bytes)
                                        : all_finite<uint32_t, 0x7f800000u>(numbers, n_bytes);
}

size_t head_count(const ModelShape& shape) {
  return static_cast<size_t>(shape.layers * shape.kv_heads);
}

// Of one token in one head.
size_t head_bytes(const ModelShape& shape) {
  return static_cast<size_t>(shape.head_dim) * shape.number_bytes();
}

// Where the tokens of a head begin in a row of `source`, keys or values.
const Byte* head_of(const ModelShape& shape, const void* source, const EncodedRow& encoded,
                    size_t head) {
  const size_t i = encoded.row * head_count(shape) + head;
  return static_cast<const Byte*>(source) + i * encoded.row_tokens * head_bytes(shape);
}

// One row's heads, with which `target` begins: appended, so that no memory is zeroed first.
void begin_with_row(const ModelShape& shape, const void* source, const EncodedRow& encoded,
                    Numbers* target) {
  const size_t n_heads = head_count(shape), n_bytes = encoded.n_tokens * head_bytes(shape);
  target->reserve(n_heads * n_bytes);
  for (size_t head = 0; head < n_heads; ++head) {
    const Byte* from = head_of(shape, source, encoded, head);
    target->insert(target->end(), from, from + n_bytes);
  }
}

// Copies one row's heads into `target`, whose heads have room for `stride` tokens, at `offset`.
void copy_row(const ModelShape& shape, const void* source, const EncodedRow& encoded, size_t stride,
              size_t offset, Byte* target) {
  const size_t size = head_bytes(shape), n_heads = head_count(shape);
  for (size_t head = 0; head < n_heads; ++head) {
    std::memcpy(target + (head * stride + offset) * size, head_of(shape, source, encoded, head),
                encoded.n_tokens * size);
  }
}

// Moves heads of `before` tokens apart so that each has room for `after`; last head first, since
// every head moves towards the end.
void spread_heads(const ModelShape& shape, size_t before, size_t after, Numbers* numbers) {
  const size_t size = head_bytes(shape), n_heads = head_count(shape);
  numbers->resize(n_heads * after * size);
  for (size_t head = n_heads; head-- > 1;) {
    std::memmove(numbers->data() + head * after * size, numbers->data() + head * before * size,
                 before * size);
  }
}

void join(const ModelShape& shape, const std::vector<std::shared_ptr<const Prefix>>& parts,
          Numbers Prefix::* field, Prefix* whole) {
  const size_t size = head_bytes(shape), n_heads = head_count(shape);
  Numbers& target = whole->*field;
  target.reserve(whole->n_tokens * shape.bytes_per_token());
  for (size_t head = 0; head < n_heads; ++head) {
    for (const auto& part : parts) {
      const size_t n = part->n_tokens * size;
      const Byte* from = ((*part).*field).data() + head * n;
      target.insert(target.end(), from, from + n);
    }
  }
}

void set_number(const ModelShape& shape, size_t i, float number, Numbers* numbers) {
  if (shape.kv_type == KvType::kHalf) {
    const uint16_t half = kernels::to_half(number);
    std::memcpy(numbers->data() + i * sizeof(half), &half, sizeof(half));
  } else {
    std::memcpy(numbers->data() + i * sizeof(number), &number, sizeof(number));
  }
}

void average(const ModelShape& shape, const Numbers& b, Numbers* a) {
  for (size_t i = 0; i < a->size() / shape.number_bytes(); ++i) {
    set_number(shape, i, 0.5f * (number_at(shape, *a, i) + number_at(shape, b, i)), a);
  }
}

}  // namespace

void PrefixTokens::append(const Block& block) {
  ids.insert(ids.end(), block.ids.begin(), block.ids.end());
  ends.push_back(static_cast<uint32_t>(ids.size()));
  segments.push_back(block.segment);
}

bool PrefixTokens::same_leading(const PrefixTokens& other, size_t n_blocks) const {
  if (ends.size() < n_blocks || other.ends.size() < n_blocks) return false;
  if (n_blocks == 0) return true;
  const size_t n_ids = ends[n_blocks - 1];
  const auto same = [](const auto& a, const auto& b, size_t n) {
    return a.size() >= n && b.size() >= n &&
           std::equal(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(n), b.begin());
  };
  return same(ends, other.ends, n_blocks) && same(segments, other.segments, n_blocks) &&
         same(ids, other.ids, n_ids);
}

Prefix prefix_from_row(const ModelShape& shape, const EncodedRow& encoded) {
  Prefix prefix;
  append_row(shape, encoded, &prefix);
  return prefix;
}

Prefix join_prefixes(const ModelShape& shape,
                     const std::vector<std::shared_ptr<const Prefix>>& parts) {
  Prefix whole;
  for (const auto& part : parts) {
    const uint32_t offset = static_cast<uint32_t>(whole.tokens.ids.size());
    const PrefixTokens& tokens = part->tokens;
    whole.tokens.ids.insert(whole.tokens.ids.end(), tokens.ids.begin(), tokens.ids.end());
    for (const uint32_t end : tokens.ends) whole.tokens.ends.push_back(offset + end);
    std::vector<int32_t>& segments = whole.tokens.segments;
    segments.insert(segments.end(), tokens.segments.begin(), tokens.segments.end());
    whole.n_tokens += part->n_tokens;
  }
  join(shape, parts, &Prefix::key, &whole);
  join(shape, parts, &Prefix::value, &whole);
  return whole;
}

Prefix picked_tokens(const ModelShape& shape, const Prefix& prefix,
                     const std::vector<size_t>& places) {
  Prefix picked;
  picked.n_tokens = places.size();
  reserve_tokens(shape, picked.n_tokens, &picked);
  const size_t size = head_bytes(shape), n_heads = head_count(shape);
  for (size_t head = 0; head < n_heads; ++head) {
    for (const size_t place : places) {
      const size_t from = (head * prefix.n_tokens + place) * size;
      const Byte* key = prefix.key.data() + from;
      const Byte* value = prefix.value.data() + from;
      picked.key.insert(picked.key.end(), key, key + size);
      picked.value.insert(picked.value.end(), value, value + size);
    }
  }
  return picked;
}

void append_row(const ModelShape& shape, const EncodedRow& encoded, Prefix* prefix) {
  const size_t before = prefix->n_tokens;
  const size_t after = before + encoded.n_tokens;
  if (before == 0) {
    begin_with_row(shape, encoded.key, encoded, &prefix->key);
    begin_with_row(shape, encoded.value, encoded, &prefix->value);
  } else {
    spread_heads(shape, before, after, &prefix->key);
    spread_heads(shape, before, after, &prefix->value);
    copy_row(shape, encoded.key, encoded, after, before, prefix->key.data());
    copy_row(shape, encoded.value, encoded, after, before, prefix->value.data());
  }
  prefix->n_tokens = after;
  prefix->device_copy.clear();
}

Prefix leading_part(const ModelShape& shape, const Prefix& prefix, const PrefixCut& cut,
                    size_t capacity) {
  Prefix part;
  part.n_tokens = cut.n_tokens;
  reserve_tokens(shape, capacity, &part);
  const auto leading = [](const auto& from, size_t n, auto* to) {
    to->assign(from.begin(), from.begin() + static_cast<std::ptrdiff_t>(n));
  };
  leading(prefix.tokens.ids, cut.n_tokens, &part.tokens.ids);
  leading(prefix.tokens.ends, cut.n_blocks, &part.tokens.ends);
  leading(prefix.tokens.segments, cut.n_blocks, &part.tokens.segments);
  const size_t size = head_bytes(shape), n_heads = head_count(shape);
  for (size_t head = 0; head < n_heads; ++head) {
    const size_t from = head * prefix.n_tokens * size;
    const Byte* key = prefix.key.data() + from;
    const Byte* value = prefix.value.data() + from;
    part.key.insert(part.key.end(), key, key + cut.n_tokens * size);
    part.value.insert(part.value.end(), value, value + cut.n_tokens * size);
  }
  return part;
}

Prefix same_keys(const ModelShape& shape, const Prefix& prefix, size_t capacity) {
  Prefix copy;
  reserve_tokens(shape, capacity, &copy);
  copy.key.assign(prefix.key.begin(), prefix.key.end());
  copy.value.assign(prefix.value.begin(), prefix.value.end());
  copy.n_tokens = prefix.n_tokens;
  return copy;
}

void average(const ModelShape& shape, const Prefix& b, Prefix* a) {
  a->device_copy.clear();
  average(shape, b.key, &a->key);
  average(shape, b.value, &a->value);
}

float number_at(const ModelShape& shape, const Numbers& numbers, size_t i) {
  if (shape.kv_type == KvType::kHalf) {
    uint16_t half;
    std::memcpy(&half, numbers.data() + i * sizeof(half), sizeof(half));
    return kernels::from_half(half);
  }
  float number;
  std::memcpy(&number, numbers.data() + i * sizeof(number), sizeof(number));
  return number;
}

void reserve_tokens(const ModelShape& shape, size_t n_tokens, Prefix* prefix) {
  prefix->key.reserve(n_tokens * shape.bytes_per_token());
  prefix->value.reserve(n_tokens * shape.bytes_per_token());
}

void set_prefix(const Prefix& prefix, EncodeInput* input) {
  input->n_prefix_tokens = static_cast<int64_t>(prefix.n_tokens);
  input->prefix_key = prefix.key.data();
  input->prefix_value = prefix.value.data();
  input->prefix_slot = &prefix.device_copy;
}

bool is_finite(const ModelShape& shape, const Prefix& prefix) {
  return all_finite(shape, prefix.key.data(), prefix.key.size()) &&
         all_finite(shape, prefix.value.data(), prefix.value.size());
}

bool is_finite(const ModelShape& shape, const EncodedRow& encoded) {
  const size_t n_heads = head_count(shape), n_bytes = encoded.n_tokens * head_bytes(shape);
  for (const void* part : {encoded.key, encoded.value}) {
    for (size_t head = 0; head < n_heads; ++head) {
      if (!all_finite(shape, head_of(shape, part, encoded, head), n_bytes)) return false;
    }
  }
  return true;
}

}  // namespace csrm
