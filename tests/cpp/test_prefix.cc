// The copies that make a prefix of keys and values: each value carries its own address (layer,
// head, token, dimension), so that a wrong move shows; arrays end where their memory ends.
// Not: the cache (test_prefix_cache.cc) or encoding (tests/python/test_incremental.py).
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "check.h"
#include "prefix.h"

namespace {

using csrm::EncodedRow;
using csrm::ModelShape;
using csrm::Prefix;

ModelShape small_shape() {
  ModelShape shape;
  shape.layers = 2;
  shape.kv_heads = 3;
  shape.head_dim = 5;
  return shape;
}

const ModelShape kShape = small_shape();
constexpr size_t kHeads = 6;  // layers x kv_heads
constexpr size_t kDim = 5;

float value_of(size_t token, size_t head, size_t d) {
  return static_cast<float>(1000 * token + 10 * head + d);
}

// An engine output of `n_rows` rows of `row_tokens` tokens; the tokens of `row` count from `first`.
std::vector<float> engine_output(size_t n_rows, size_t row_tokens, size_t row, size_t first) {
  std::vector<float> made;
  for (size_t r = 0; r < n_rows; ++r) {
    for (size_t head = 0; head < kHeads; ++head) {
      for (size_t t = 0; t < row_tokens; ++t) {
        for (size_t d = 0; d < kDim; ++d) {
          made.push_back(r == row ? value_of(first + t, head, d) : -1.0f);
        }
      }
    }
  }
  return made;
}

// `n` tokens counting from `first`, read from the last row of an output with padding behind it.
Prefix prefix_of(size_t first, size_t n) {
  const std::vector<float> key = engine_output(3, n + 2, 2, first);
  const std::vector<float> value = engine_output(3, n + 2, 2, first + 500);
  Prefix made = prefix_from_row(kShape, {key.data(), value.data(), 2, n + 2, n});
  made.tokens.ids.assign(n, static_cast<int32_t>(first));
  made.tokens.ends = {static_cast<uint32_t>(n)};
  made.tokens.segments = {1};
  return made;
}

bool counts_from(const Prefix& prefix, size_t first, size_t n) {
  if (prefix.n_tokens != n || prefix.key.size() != kHeads * n * kDim) return false;
  if (prefix.value.size() != prefix.key.size()) return false;
  size_t at = 0;
  for (size_t head = 0; head < kHeads; ++head) {
    for (size_t t = 0; t < n; ++t) {
      for (size_t d = 0; d < kDim; ++d, ++at) {
        if (prefix.key[at] != value_of(first + t, head, d)) return false;
        if (prefix.value[at] != value_of(first + 500 + t, head, d)) return false;
      }
    }
  }
  return true;
}

void test_prefix_from_row_takes_that_row_without_padding() {
  for (const size_t n : {1, 2, 7}) CHECK(counts_from(prefix_of(3, n), 3, n));
}

void test_prefix_append_grows_in_place_with_or_without_room() {
  for (const bool has_room : {false, true}) {
    Prefix prefix;
    if (has_room) reserve_tokens(kShape, 12, &prefix);
    const float* before = prefix.key.data();
    size_t n_all = 0;
    for (const size_t n : {4, 1, 0, 7}) {
      const std::vector<float> key = engine_output(2, n + 1, 1, n_all);
      const std::vector<float> value = engine_output(2, n + 1, 1, n_all + 500);
      append_row(kShape, {key.data(), value.data(), 1, n + 1, n}, &prefix);
      n_all += n;
      CHECK(counts_from(prefix, 0, n_all));
    }
    CHECK(!has_room || prefix.key.data() == before);
  }
}

void test_prefix_join_puts_parts_one_after_another() {
  const auto part = [](size_t first, size_t n) {
    return std::make_shared<const Prefix>(prefix_of(first, n));
  };
  const Prefix whole = join_prefixes(kShape, {part(0, 3), part(3, 1), part(4, 6)});
  CHECK(counts_from(whole, 0, 10));
  CHECK((whole.tokens.ends == std::vector<uint32_t>{3, 4, 10}) && whole.tokens.ids.size() == 10);
  CHECK(whole.tokens.segments.size() == 3 && whole.tokens.ids[3] == 3);
  CHECK(join_prefixes(kShape, {}).n_tokens == 0);
}

void test_prefix_leading_part_is_cut_in_every_head() {
  const Prefix whole = join_prefixes(kShape, {std::make_shared<const Prefix>(prefix_of(0, 3)),
                                              std::make_shared<const Prefix>(prefix_of(3, 5))});
  const Prefix part = leading_part(kShape, whole, {1, 3}, 20);
  CHECK(counts_from(part, 0, 3) && part.tokens.ends.size() == 1 && part.tokens.ids.size() == 3);
  CHECK(part.key.capacity() >= 20 * kHeads * kDim);
  CHECK(part.tokens.same_leading(whole.tokens, 1) && !part.tokens.same_leading(whole.tokens, 2));
  CHECK(counts_from(leading_part(kShape, whole, {0, 0}, 0), 0, 0));
  CHECK(counts_from(leading_part(kShape, whole, {2, 8}, 8), 0, 8));
}

void test_prefix_any_value_that_is_not_finite_is_seen() {
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    for (const size_t at : {size_t{0}, size_t{44}, kHeads * 3 * kDim - 1}) {
      Prefix prefix = prefix_of(0, 3);
      CHECK(is_finite(prefix));
      prefix.value[at] = bad;
      CHECK(!is_finite(prefix));
    }
    std::vector<float> key = engine_output(2, 4, 1, 0);
    const std::vector<float> value = key;
    const EncodedRow row{key.data(), value.data(), 1, 4, 3};
    key[0] = bad;                        // another row
    key[(kHeads * 4 + 3) * kDim] = bad;  // padding
    CHECK(is_finite(kShape, row));
    key[(kHeads * 4 + (kHeads - 1) * 4 + 2) * kDim + 4] = bad;  // the last value of the row
    CHECK(!is_finite(kShape, row));
  }
}

}  // namespace

int main() {
  test_prefix_from_row_takes_that_row_without_padding();
  test_prefix_append_grows_in_place_with_or_without_room();
  test_prefix_join_puts_parts_one_after_another();
  test_prefix_leading_part_is_cut_in_every_head();
  test_prefix_any_value_that_is_not_finite_is_seen();
  return csrm_test::summary();
}
