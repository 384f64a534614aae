// The copies that make a prefix of keys and values: each value carries its own address (layer,
// head, token, dimension), so that a wrong move shows; arrays end where their memory ends. In
// floats and in half precision. Not: the cache (test_prefix_cache.cc) or encoding
// (tests/python/test_incremental.py).
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "check.h"
#include "kernels/half.h"
#include "prefix.h"

namespace {

using csrm::EncodedRow;
using csrm::KvType;
using csrm::ModelShape;
using csrm::Prefix;

ModelShape small_shape(KvType kv_type) {
  ModelShape shape;
  shape.layers = 2;
  shape.kv_heads = 3;
  shape.head_dim = 5;
  shape.kv_type = kv_type;
  return shape;
}

constexpr size_t kHeads = 6;  // layers x kv_heads
constexpr size_t kDim = 5;

// A prefix's numbers: of float, or, of half precision, of uint16_t, their bits.
template <typename Number>
struct Of {
  static const ModelShape kShape;

  static Number value_of(size_t token, size_t head, size_t d) {
    return static_cast<Number>(64 * token + 8 * head + d);
  }

  // An engine output of `n_rows` rows of `row_tokens` tokens; those of `row` count from `first`.
  static std::vector<Number> engine_output(size_t n_rows, size_t row_tokens, size_t row,
                                           size_t first) {
    std::vector<Number> made;
    for (size_t r = 0; r < n_rows; ++r) {
      for (size_t head = 0; head < kHeads; ++head) {
        for (size_t t = 0; t < row_tokens; ++t) {
          for (size_t d = 0; d < kDim; ++d) {
            made.push_back(r == row ? value_of(first + t, head, d) : Number{63});
          }
        }
      }
    }
    return made;
  }

  // `n` tokens counting from `first`, read from the last row of an output with padding behind it.
  static Prefix prefix_of(size_t first, size_t n) {
    const auto key = engine_output(3, n + 2, 2, first),
               value = engine_output(3, n + 2, 2, first + 500);
    Prefix made = prefix_from_row(kShape, {key.data(), value.data(), 2, n + 2, n});
    made.tokens.ids.assign(n, static_cast<int32_t>(first));
    made.tokens.ends = {static_cast<uint32_t>(n)};
    made.tokens.segments = {1};
    return made;
  }

  static Number at(const csrm::Numbers& numbers, size_t i) {
    Number number;
    std::memcpy(&number, numbers.data() + i * sizeof(number), sizeof(number));
    return number;
  }

  static bool counts_from(const Prefix& prefix, size_t first, size_t n) {
    if (prefix.n_tokens != n || prefix.key.size() != kHeads * n * kDim * sizeof(Number))
      return false;
    if (prefix.value.size() != prefix.key.size()) return false;
    size_t i = 0;
    for (size_t head = 0; head < kHeads; ++head) {
      for (size_t t = 0; t < n; ++t) {
        for (size_t d = 0; d < kDim; ++d, ++i) {
          if (at(prefix.key, i) != value_of(first + t, head, d)) return false;
          if (at(prefix.value, i) != value_of(first + 500 + t, head, d)) return false;
        }
      }
    }
    return true;
  }

  static void test_prefix_from_row_takes_that_row_without_padding();
  static void test_prefix_append_grows_in_place_with_or_without_room();
  static void test_prefix_join_puts_parts_one_after_another();
  static void test_prefix_leading_part_is_cut_in_every_head();
  static void test_prefix_same_keys_are_all_of_them();
  static void test_prefix_picked_tokens_come_in_the_order_asked_for();
  static void test_prefix_average_is_the_mean_of_each_number();
  static void test_prefix_any_value_that_is_not_finite_is_seen();
  static void test_all();
};

template <>
const ModelShape Of<float>::kShape = small_shape(KvType::kFloat);
template <>
const ModelShape Of<uint16_t>::kShape = small_shape(KvType::kHalf);

// `value` as a number, and numbers that are not finite.
template <typename Number>
Number number_of(float value);
template <>
float number_of(float value) {
  return value;
}
template <>
uint16_t number_of(float value) {
  if (std::isinf(value)) return value < 0 ? 0xfc00 : 0x7c00;  // to_half() gives none
  return csrm::kernels::to_half(value);
}

template <typename Number>
void Of<Number>::test_prefix_from_row_takes_that_row_without_padding() {
  for (const size_t n : {1, 2, 7}) CHECK(counts_from(prefix_of(3, n), 3, n));
}

template <typename Number>
void Of<Number>::test_prefix_append_grows_in_place_with_or_without_room() {
  for (const bool has_room : {false, true}) {
    Prefix prefix;
    if (has_room) reserve_tokens(kShape, 12, &prefix);
    const void* before = prefix.key.data();
    size_t n_all = 0;
    for (const size_t n : {4, 1, 0, 7}) {
      const auto key = engine_output(2, n + 1, 1, n_all);
      const auto value = engine_output(2, n + 1, 1, n_all + 500);
      append_row(kShape, {key.data(), value.data(), 1, n + 1, n}, &prefix);
      n_all += n;
      CHECK(counts_from(prefix, 0, n_all));
    }
    CHECK(!has_room || prefix.key.data() == before);
  }
}

template <typename Number>
void Of<Number>::test_prefix_join_puts_parts_one_after_another() {
  const auto part = [](size_t first, size_t n) {
    return std::make_shared<const Prefix>(prefix_of(first, n));
  };
  const Prefix whole = join_prefixes(kShape, {part(0, 3), part(3, 1), part(4, 6)});
  CHECK(counts_from(whole, 0, 10));
  CHECK((whole.tokens.ends == std::vector<uint32_t>{3, 4, 10}) && whole.tokens.ids.size() == 10);
  CHECK(whole.tokens.segments.size() == 3 && whole.tokens.ids[3] == 3);
  CHECK(join_prefixes(kShape, {}).n_tokens == 0);
}

template <typename Number>
void Of<Number>::test_prefix_leading_part_is_cut_in_every_head() {
  const Prefix whole = join_prefixes(kShape, {std::make_shared<const Prefix>(prefix_of(0, 3)),
                                              std::make_shared<const Prefix>(prefix_of(3, 5))});
  const Prefix part = leading_part(kShape, whole, {1, 3}, 20);
  CHECK(counts_from(part, 0, 3) && part.tokens.ends.size() == 1 && part.tokens.ids.size() == 3);
  CHECK(part.key.capacity() >= 20 * kHeads * kDim * sizeof(Number));
  CHECK(part.tokens.same_leading(whole.tokens, 1) && !part.tokens.same_leading(whole.tokens, 2));
  CHECK(counts_from(leading_part(kShape, whole, {0, 0}, 0), 0, 0));
  CHECK(counts_from(leading_part(kShape, whole, {2, 8}, 8), 0, 8));
}

template <typename Number>
void Of<Number>::test_prefix_same_keys_are_all_of_them() {
  const Prefix copy = same_keys(kShape, prefix_of(2, 5), 9);
  CHECK(counts_from(copy, 2, 5) && copy.tokens.ids.empty());
  CHECK(copy.key.capacity() >= 9 * kHeads * kDim * sizeof(Number));
}

template <typename Number>
void Of<Number>::test_prefix_picked_tokens_come_in_the_order_asked_for() {
  const Prefix whole = prefix_of(0, 9);
  const Prefix one = picked_tokens(kShape, whole, {7});
  CHECK(counts_from(one, 7, 1));
  const Prefix three = picked_tokens(kShape, whole, {4, 5, 6});
  CHECK(counts_from(three, 4, 3));
  CHECK(at(picked_tokens(kShape, whole, {8, 2}).key, 5) == value_of(2, 0, 0));
}

template <typename Number>
void Of<Number>::test_prefix_average_is_the_mean_of_each_number() {
  const auto constant = [](float number) {
    const std::vector<Number> numbers(kHeads * 2 * kDim, number_of<Number>(number));
    return prefix_from_row(kShape, {numbers.data(), numbers.data(), 0, 2, 2});
  };
  Prefix mean = constant(3.5f);
  average(kShape, constant(-1.0f), &mean);
  CHECK(mean.n_tokens == 2 && mean.key == constant(1.25f).key && mean.value == mean.key);
  CHECK(number_at(kShape, mean.value, kHeads * 2 * kDim - 1) == 1.25f);
}

template <typename Number>
void Of<Number>::test_prefix_any_value_that_is_not_finite_is_seen() {
  const auto finite = [](size_t n) { return std::vector<Number>(n, number_of<Number>(-1.5f)); };
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    const Number number = number_of<Number>(bad);
    for (const size_t i : {size_t{0}, size_t{44}, kHeads * 3 * kDim - 1}) {
      const auto key = finite(kHeads * 3 * kDim);
      Prefix prefix = prefix_from_row(kShape, {key.data(), key.data(), 0, 3, 3});
      CHECK(is_finite(kShape, prefix));
      std::memcpy(prefix.value.data() + i * sizeof(number), &number, sizeof(number));
      CHECK(!is_finite(kShape, prefix));
    }
    for (const bool is_key : {true, false}) {
      auto changed = finite(2 * kHeads * 4 * kDim);
      const auto other = changed;
      const EncodedRow row{is_key ? changed.data() : other.data(),
                           is_key ? other.data() : changed.data(), 1, 4, 3};
      changed[0] = number;                        // another row
      changed[(kHeads * 4 + 3) * kDim] = number;  // padding
      CHECK(is_finite(kShape, row));
      changed[(kHeads * 4 + (kHeads - 1) * 4 + 2) * kDim + 4] = number;  // the row's last one
      CHECK(!is_finite(kShape, row));
    }
  }
}

template <typename Number>
void Of<Number>::test_all() {
  test_prefix_from_row_takes_that_row_without_padding();
  test_prefix_append_grows_in_place_with_or_without_room();
  test_prefix_join_puts_parts_one_after_another();
  test_prefix_leading_part_is_cut_in_every_head();
  test_prefix_same_keys_are_all_of_them();
  test_prefix_picked_tokens_come_in_the_order_asked_for();
  test_prefix_average_is_the_mean_of_each_number();
  test_prefix_any_value_that_is_not_finite_is_seen();
}

}  // namespace

int main() {
  Of<float>::test_all();
  Of<uint16_t>::test_all();
  return csrm_test::summary();
}
