// LinearI8 in one version (the instruction set named on the command line) against exact integers;
// tasks on one thread and on several; arguments that must be refused; and the self check that
// chooses a version. Made for the sanitizers: each array ends where its memory ends. Not: the
// operator inside ONNX Runtime and its full case table (tests/python/test_linear_i8.py).
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "check.h"
#include "isa_tests.h"
#include "kernel_data.h"
#include "kernels/linear_i8.h"
#include "kernels/self_check.h"

namespace {

using csrm::Code;
using csrm::Result;
using csrm::kernels::Aligned;
using csrm::kernels::aligned;
using csrm::kernels::Isa;
using csrm::kernels::kByteLevels;
using csrm::kernels::kWordLevels;
using csrm::kernels::LinearI8;
using csrm::kernels::LinearI8Params;
using csrm_test::Floats;
using csrm_test::Random;
using csrm_test::run_tasks;

constexpr int kThreads = 3;

struct Case {
  int64_t n_rows, n_in, n_out, levels;
};

struct Data {
  Floats x, scale, bias;
  std::vector<int8_t> values;

  explicit Data(const Case& c) : x(0), scale(c.n_out, 0.01f), bias(0) {
    Random random(static_cast<uint32_t>(c.n_in * 131 + c.n_out));
    x = random.floats(c.n_rows * c.n_in);
    bias = random.floats(c.n_out);
    for (int64_t i = 0; i < c.n_in * c.n_out; ++i) {
      values.push_back(static_cast<int8_t>(random.below(256) - 128));
    }
  }
  LinearI8Params params(const Case& c) const {
    return {values.data(), scale.data(), bias.data(), c.n_in, c.n_out, c.levels, false};
  }
};

// As linear_i8.h defines it, one number after the other.
Floats definition(const Case& c, const Data& d) {
  Floats y(c.n_rows * c.n_out);
  for (int64_t m = 0; m < c.n_rows; ++m) {
    const float* x = d.x.data() + m * c.n_in;
    float most = 0.0f;
    for (int64_t k = 0; k < c.n_in; ++k) most = std::max(most, std::abs(x[k]));
    const float levels = static_cast<float>(c.levels);
    const float factor = levels / most, step = most / levels;
    for (int64_t n = 0; n < c.n_out; ++n) {
      int64_t sum = 0;
      for (int64_t k = 0; k < c.n_in; ++k) {
        volatile const float scaled = x[k] * factor;  // rounded on its own
        sum += std::lrint(scaled) * d.values[static_cast<size_t>(k * c.n_out + n)];
      }
      volatile const float product = static_cast<float>(sum) * (step * d.scale[n]);
      y[m * c.n_out + n] = product + d.bias[n];
    }
  }
  return y;
}

Floats run(const LinearI8& linear, const float* x, int64_t n_rows, int n_threads) {
  Floats y(n_rows * linear.n_out(), -9.0f);
  Aligned<char> scratch = aligned<char>(linear.scratch_size(n_rows));
  run_tasks(linear.n_round_tasks(n_rows), n_threads,
            [&](size_t i) { linear.round_task(x, n_rows, scratch.get(), i); });
  run_tasks(linear.n_tasks(n_rows), n_threads,
            [&](size_t i) { linear.run_task(scratch.get(), n_rows, y.data(), i); });
  return y;
}

void test_linear_i8_any_size_equals_definition(Isa isa) {
  const Case cases[] = {
      {1, 1, 1, kByteLevels},      {1, 7, 5, kWordLevels},      {6, 65, 40, kByteLevels},
      {0, 16, 48, kByteLevels},    {5, 100, 3, kWordLevels},    {9, 33, 65, kByteLevels},
      {2, 31, 63, kWordLevels},    {13, 1000, 33, kByteLevels}, {300, 48, 80, kWordLevels},
      {129, 24, 130, kByteLevels}, {1, 384, 1152, kWordLevels},
  };
  for (const Case& c : cases) {
    const Data d(c);
    const Result<LinearI8> made = LinearI8::make(d.params(c), isa);
    CHECK(made.ok());
    if (!made.ok()) continue;
    const Floats expected = definition(c, d);
    CHECK(run(made.value(), d.x.data(), c.n_rows, 1).equals(expected));
    CHECK(run(made.value(), d.x.data(), c.n_rows, kThreads).equals(expected));
    for (int64_t m = 0; m < std::min<int64_t>(c.n_rows, 3); ++m) {
      Floats row(c.n_in);
      std::copy_n(d.x.data() + m * c.n_in, c.n_in, row.data());
      const Floats one = run(made.value(), row.data(), 1, 1);
      CHECK(std::memcmp(one.data(), expected.data() + m * c.n_out,
                        sizeof(float) * static_cast<size_t>(c.n_out)) == 0);
    }
  }
}

// Every number of rows up to some tiles; depths and widths about their edges.
void test_linear_i8_any_number_of_rows_equals_definition(Isa isa) {
  const Case sizes[] = {{40, 130, 50, kWordLevels}, {40, 130, 50, kByteLevels},
                        {40, 64, 16, kWordLevels},  {40, 63, 17, kByteLevels},
                        {40, 65, 33, kWordLevels},  {40, 257, 95, kByteLevels}};
  for (const Case& size : sizes) {
    const Data d(size);
    const Result<LinearI8> made = LinearI8::make(d.params(size), isa);
    CHECK(made.ok());
    if (!made.ok()) continue;
    const Floats whole = definition(size, d);
    for (int64_t n_rows = 1; n_rows <= size.n_rows; ++n_rows) {
      Floats x(n_rows * size.n_in), expected(n_rows * size.n_out);
      std::copy_n(d.x.data(), n_rows * size.n_in, x.data());
      std::copy_n(whole.data(), n_rows * size.n_out, expected.data());
      CHECK(run(made.value(), x.data(), n_rows, 1).equals(expected));
      CHECK(run(made.value(), x.data(), n_rows, kThreads).equals(expected));
    }
  }
}

// With GELU, whose steps no definition fixes, and with rows of zeros and of what is not finite.
void test_linear_i8_with_gelu_equals_portable_version(Isa isa) {
  for (int64_t levels : {kByteLevels, kWordLevels}) {
    const Case c{37, 150, 83, levels};
    Data d(c);
    for (int64_t m = 0; m < c.n_rows; ++m) {
      float* row = d.x.data() + m * c.n_in;
      for (int64_t k = 0; k < c.n_in; ++k) row[k] *= std::ldexp(1.0f, static_cast<int>(m % 16) - 8);
    }
    const auto set_row = [&](int64_t m, float value) {
      std::fill_n(d.x.data() + m * c.n_in, c.n_in, value);
    };
    set_row(3, 0.0f);
    set_row(20, -0.0f);
    set_row(33, 9e-31f);  // counts as zeros
    d.x.data()[7 * c.n_in + 149] = std::numeric_limits<float>::quiet_NaN();
    d.x.data()[18 * c.n_in] = -std::numeric_limits<float>::infinity();
    LinearI8Params p = d.params(c);
    p.has_gelu = true;
    const Result<LinearI8> made = LinearI8::make(p, isa);
    const Result<LinearI8> portable = LinearI8::make(p, Isa::kPortable);
    CHECK(made.ok() && portable.ok());
    if (!made.ok() || !portable.ok()) return;
    const Floats y = run(made.value(), d.x.data(), c.n_rows, 1);
    const Floats expected = run(portable.value(), d.x.data(), c.n_rows, 1);
    for (int64_t i = 0; i < c.n_rows * c.n_out; ++i) {
      const int64_t row = i / c.n_out;
      if (row == 7 || row == 18) {
        CHECK(std::isnan(y[i]) && std::isnan(expected[i]));
      } else {
        CHECK(std::memcmp(y.data() + i, expected.data() + i, sizeof(float)) == 0);
      }
    }
  }
}

// Far from 0 GELU is its argument, or 0.
void test_linear_i8_gelu_is_exact_far_from_zero(Isa isa) {
  constexpr int64_t kOut = 40;
  const float x = 0.0f, scale[kOut] = {};
  const int8_t values[kOut] = {};
  Floats bias(kOut), one(1);
  for (int64_t n = 0; n < kOut; ++n) {
    bias[n] = (n % 2 == 0 ? 1.0f : -1.0f) * (5.6f + static_cast<float>(n * n));
  }
  const LinearI8Params p{values, scale, bias.data(), 1, kOut, kWordLevels, true};
  const Result<LinearI8> made = LinearI8::make(p, isa);
  CHECK(made.ok());
  if (!made.ok()) return;
  const Floats y = run(made.value(), &x, 1, 1);
  for (int64_t n = 0; n < kOut; ++n) CHECK(y[n] == (n % 2 == 0 ? bias[n] : 0.0f));
}

void test_linear_i8_bad_arguments_are_refused(Isa isa) {
  const Case c{1, 3, 2, kByteLevels};
  const Data d(c);
  const auto refused = [&](void (*change)(LinearI8Params*)) {
    LinearI8Params p = d.params(c);
    change(&p);
    return LinearI8::make(p, isa).status().code == Code::kBadArgument;
  };
  CHECK(!refused([](LinearI8Params*) {}));
  CHECK(refused([](LinearI8Params* p) { p->n_in = 0; }));
  CHECK(refused([](LinearI8Params* p) { p->n_in = csrm::kernels::kMaxLinearI8Depth + 1; }));
  CHECK(refused([](LinearI8Params* p) { p->n_out = -1; }));
  CHECK(refused([](LinearI8Params* p) { p->levels = 128; }));
  CHECK(refused([](LinearI8Params* p) { p->values = nullptr; }));
  CHECK(refused([](LinearI8Params* p) { p->scale = nullptr; }));
  CHECK(refused([](LinearI8Params* p) { p->bias = nullptr; }));
}

// Every version that this CPU has is right, so the widest is chosen; how long asking took.
void test_self_check_passes_and_the_widest_is_chosen(Isa isa) {
  CHECK(csrm::kernels::passes_self_check(isa));
  double least_ms = 1e9;
  for (int i = 0; i < 20; ++i) {
    const auto start = std::chrono::steady_clock::now();
    CHECK(csrm::kernels::passes_self_check(isa));
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    least_ms = std::min(least_ms, took.count());
  }
  std::printf("self check of version %d: %.3f ms\n", static_cast<int>(isa), least_ms);
  const Isa best = csrm::kernels::resolved_isa(Isa::kBest);
  CHECK(static_cast<int>(best) >= static_cast<int>(isa));
  const char* const names[] = {"", "portable", "avx2", "avx512", "amx"};
  CHECK(csrm::kernels::chosen_isa() == names[static_cast<int>(best)]);
}

}  // namespace

int main(int argc, char** argv) {
  return csrm_test::run_isa_tests(
      argc, argv,
      {test_linear_i8_any_size_equals_definition,
       test_linear_i8_any_number_of_rows_equals_definition,
       test_linear_i8_with_gelu_equals_portable_version, test_linear_i8_gelu_is_exact_far_from_zero,
       test_linear_i8_bad_arguments_are_refused, test_self_check_passes_and_the_widest_is_chosen},
      csrm::kernels::linear_i8_supported);
}
