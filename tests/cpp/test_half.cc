// Half precision: every number of it and its neighbours against a definition in double, and
// HalfKeyValue in one version (named on the command line) against to_half(), to the bit.
// Not: attention over such keys (test_kernels.cc).
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "check.h"
#include "isa_tests.h"
#include "kernel_data.h"
#include "kernels/half.h"
#include "kernels/half_key_value.h"

namespace {

using csrm::Code;
using csrm::kernels::from_half;
using csrm::kernels::HalfKeyValueParams;
using csrm::kernels::Isa;
using csrm::kernels::to_half;
using csrm_test::Floats;
using csrm_test::Random;
using csrm_test::run_tasks;

constexpr int kThreads = 3;

// The nearest of all halves, by trying them.
double half_definition(double value) {
  if (std::abs(value) >= 65520.0) return NAN;
  const double step = std::max(std::exp2(std::floor(std::log2(std::abs(value))) - 10.0), 0x1p-24);
  return value == 0.0 ? 0.0 : std::nearbyint(value / step) * step;
}

void test_half_every_number_and_its_neighbours_match_definition() {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const auto half = static_cast<uint16_t>(h);
    const float value = from_half(half);
    if ((half & 0x7fff) > 0x7c00) {
      CHECK(std::isnan(value) && std::isnan(from_half(to_half(value))));
      continue;
    }
    CHECK((half & 0x7fff) == 0x7c00 ? std::isinf(value) : to_half(value) == half);
    const float next = from_half(static_cast<uint16_t>(half + 1));
    const float middle = 0.5f * (value + next);
    for (const float near : {std::nextafter(value, 1e9f), middle, std::nextafter(middle, 1e9f),
                             std::nextafter(middle, -1e9f), value}) {
      const double expected = half_definition(near), actual = from_half(to_half(near));
      CHECK(expected == actual || (std::isnan(expected) && std::isnan(actual)));
      CHECK(std::isnan(actual) || std::signbit(near) == std::signbit(actual));
    }
  }
  CHECK(from_half(to_half(65519.0f)) == 65504.0f);
  for (const float bad : {65520.0f, -1e30f, INFINITY, NAN})
    CHECK((to_half(bad) & 0x7fff) == 0x7e00);
}

void test_half_key_value_any_size_gives_the_bits_of_to_half(Isa isa) {
  const int64_t cases[][4] = {{1, 1, 1, 1},     {2, 16, 2, 32}, {3, 37, 3, 7},
                              {1, 130, 12, 32}, {0, 5, 1, 8},   {2, 0, 1, 8}};
  for (const auto& c : cases) {
    const int64_t n_columns = c[2] * c[3], width = 2 * n_columns + 5;
    Random random(static_cast<uint32_t>(c[1] + c[3]));
    Floats states = random.floats(c[0] * c[1] * width, 300.0f);
    for (int64_t i = 0; i < states.size(); i += 11) states[i] *= i % 2 == 0 ? 1e4f : 1e-9f;
    const size_t n = static_cast<size_t>(c[0] * c[1] * n_columns);
    std::vector<uint16_t> key(n, 1), value(n, 1);
    HalfKeyValueParams p{states.data(), key.data(), value.data(), c[0], c[1],
                         c[2],          c[3],       width,        2,    n_columns + 4};
    CHECK(check_half_key_value(p, isa).ok());
    run_tasks(half_key_value_tasks(p), kThreads,
              [&](size_t i) { run_half_key_value_task(p, isa, i); });
    size_t at = 0;
    for (int64_t i = 0; i < c[0] * c[2]; ++i) {
      for (int64_t t = 0; t < c[1]; ++t) {
        const float* from = p.states + (i / c[2] * c[1] + t) * width + i % c[2] * c[3];
        for (int64_t d = 0; d < c[3]; ++d, ++at) {
          CHECK(key[at] == to_half(from[p.key_offset + d]));
          CHECK(value[at] == to_half(from[p.value_offset + d]));
        }
      }
    }
  }
}

void test_half_key_value_bad_arguments_are_refused(Isa isa) {
  const auto refused = [&](void (*change)(HalfKeyValueParams*)) {
    const float states[16] = {};
    uint16_t key[8], value[8];
    HalfKeyValueParams p{states, key, value, 1, 2, 2, 2, 8, 0, 4};
    change(&p);
    return check_half_key_value(p, isa).code == Code::kBadArgument;
  };
  CHECK(!refused([](HalfKeyValueParams*) {}));
  CHECK(refused([](HalfKeyValueParams* p) { p->n_batch = -1; }));
  CHECK(refused([](HalfKeyValueParams* p) { p->n_tokens = -1; }));
  CHECK(refused([](HalfKeyValueParams* p) { p->n_kv_heads = 0; }));
  CHECK(refused([](HalfKeyValueParams* p) { p->head_dim = 0; }));
  CHECK(refused([](HalfKeyValueParams* p) { p->key_offset = -1; }));
  CHECK(refused([](HalfKeyValueParams* p) { p->value_offset = 5; }));
  CHECK(refused([](HalfKeyValueParams* p) { p->states = nullptr; }));
  CHECK(refused([](HalfKeyValueParams* p) { p->value = nullptr; }));
}

}  // namespace

int main(int argc, char** argv) {
  test_half_every_number_and_its_neighbours_match_definition();
  return csrm_test::run_isa_tests(argc, argv,
                                  {test_half_key_value_any_size_gives_the_bits_of_to_half,
                                   test_half_key_value_bad_arguments_are_refused});
}
