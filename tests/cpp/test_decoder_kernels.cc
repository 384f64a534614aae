// What decoders need of the kernels, in one version (the instruction set named on the command line)
// against its definition in double: Rope, SwiGlu, RMSNorm in AddNorm and RewardHead, Linear without
// a bias; tasks on one thread and on several; arguments that must be refused. Made for the
// sanitizers: each array ends where its memory ends. Not: the other kernels (test_kernels.cc), or
// any of them inside ONNX Runtime (tests/python/test_rope.py, test_swiglu.py and others).
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "check.h"
#include "isa_tests.h"
#include "kernel_data.h"
#include "kernels/add_norm.h"
#include "kernels/linear.h"
#include "kernels/reward_head.h"
#include "kernels/rope.h"
#include "kernels/swiglu.h"

namespace {

using csrm::Code;
using csrm::Result;
using csrm::kernels::AddNormParams;
using csrm::kernels::Isa;
using csrm::kernels::Linear;
using csrm::kernels::LinearParams;
using csrm::kernels::RewardHeadParams;
using csrm::kernels::RopeParams;
using csrm::kernels::SwiGluParams;
using csrm_test::distance;
using csrm_test::Floats;
using csrm_test::Random;
using csrm_test::run_tasks;

constexpr int kThreads = 3;

// 1 / sqrt(mean square + epsilon) of n floats.
double shrink(const float* x, int64_t n, float epsilon) {
  double square = 0;
  for (int64_t i = 0; i < n; ++i) square += static_cast<double>(x[i]) * x[i];
  return 1.0 / std::sqrt(square / static_cast<double>(n) + static_cast<double>(epsilon));
}

// ---- Rope

struct RopeData {
  Floats x, frequencies, weight, y;
  std::vector<int64_t> positions;
  RopeParams p{};

  RopeData(int64_t n_rows, int64_t n_heads, int64_t head_dim, int64_t rest, bool has_norm)
      : x(0), frequencies(head_dim / 2), weight(0), y(0) {
    Random random(static_cast<uint32_t>(head_dim * 17 + n_heads));
    p.n_columns = n_heads * head_dim + rest;
    x = random.floats(n_rows * p.n_columns);
    weight = random.floats(n_heads * head_dim, 0.2f, 1.0f);
    y = Floats(x.size(), -9.0f);
    positions = random.integers(n_rows, 0, 3000);
    for (int64_t i = 0; i < head_dim / 2; ++i) frequencies[i] = 0.5f + random.number(0.5f);
    p.x = x.data();
    p.positions = positions.data();
    p.frequencies = frequencies.data();
    p.weight = has_norm ? weight.data() : nullptr;
    p.y = y.data();
    p.n_rows = n_rows;
    p.n_heads = n_heads;
    p.head_dim = head_dim;
    p.epsilon = 1e-5f;
  }
};

std::vector<double> rope_definition(const RopeParams& p) {
  std::vector<double> y;
  const int64_t half = p.head_dim / 2;
  for (int64_t row = 0; row < p.n_rows; ++row) {
    const float* x = p.x + row * p.n_columns;
    for (int64_t at = 0; at < p.n_columns; ++at) {
      const int64_t first = at - at % p.head_dim;  // of the head
      if (at >= p.n_heads * p.head_dim) {
        y.push_back(x[at]);
        continue;
      }
      const auto value = [&](int64_t i) {
        if (p.weight == nullptr) return static_cast<double>(x[i]);
        return x[i] * shrink(x + first, p.head_dim, p.epsilon) * p.weight[i];
      };
      const int64_t i = (at - first) % half;
      const float angle = static_cast<float>(p.positions[row]) * p.frequencies[i];
      const double c = std::cos(static_cast<double>(angle));
      const double s = std::sin(static_cast<double>(angle));
      y.push_back(at - first < half ? value(at) * c - value(at + half) * s
                                    : value(at) * c + value(at - half) * s);
    }
  }
  return y;
}

void test_rope_any_size_matches_definition(Isa isa) {
  const int64_t cases[][4] = {{1, 1, 2, 0},  {6, 3, 16, 48}, {5, 2, 42, 1},   {0, 2, 8, 0},
                              {2, 1, 30, 7}, {9, 12, 64, 0}, {300, 3, 16, 5}, {2, 1, 1024, 0}};
  for (const auto& c : cases) {
    for (bool has_norm : {false, true}) {
      RopeData d(c[0], c[1], c[2], c[3], has_norm);
      CHECK(check_rope(d.p, isa).ok());
      const std::vector<double> expected = rope_definition(d.p);
      run_tasks(rope_tasks(d.p), 1, [&](size_t i) { run_rope_task(d.p, isa, i); });
      CHECK(distance(d.y, expected) <= 2e-6);  // two products of about 1, one ulp each
      d.p.y = d.x.data();
      run_tasks(rope_tasks(d.p), kThreads, [&](size_t i) { run_rope_task(d.p, isa, i); });
      CHECK(d.x.equals(d.y));
    }
  }
}

void test_rope_bad_arguments_are_refused(Isa isa) {
  const auto refused = [&](void (*change)(RopeParams*)) {
    RopeData d(2, 3, 8, 4, true);
    change(&d.p);
    return check_rope(d.p, isa).code == Code::kBadArgument;
  };
  CHECK(!refused([](RopeParams*) {}));
  CHECK(!refused([](RopeParams* p) { p->weight = nullptr; }));
  CHECK(refused([](RopeParams* p) { p->n_rows = -1; }));
  CHECK(refused([](RopeParams* p) { p->n_heads = 0; }));
  CHECK(refused([](RopeParams* p) { p->n_heads = 4; }));
  CHECK(refused([](RopeParams* p) { p->n_heads = INT64_MAX; }));
  CHECK(refused([](RopeParams* p) { p->head_dim = 0; }));
  CHECK(refused([](RopeParams* p) { p->head_dim = 7; }));
  CHECK(refused([](RopeParams* p) { p->head_dim = 1026; }));
  CHECK(refused([](RopeParams* p) { p->epsilon = NAN; }));
  CHECK(refused([](RopeParams* p) { p->x = nullptr; }));
  CHECK(refused([](RopeParams* p) { p->positions = nullptr; }));
  CHECK(refused([](RopeParams* p) { p->frequencies = nullptr; }));
  CHECK(refused([](RopeParams* p) { p->y = nullptr; }));
}

// ---- SwiGlu

void test_swiglu_any_size_matches_definition(Isa isa) {
  const int64_t cases[][2] = {{1, 1},  {1, 7},  {6, 65},   {5, 31},
                              {5, 33}, {0, 32}, {300, 48}, {3, 1536}};
  for (const auto& c : cases) {
    Random random(static_cast<uint32_t>(c[1]));
    const Floats x = random.floats(c[0] * 2 * c[1], 4.0f);
    Floats y(c[0] * c[1], -9.0f), threaded = y;
    SwiGluParams p{x.data(), y.data(), c[0], c[1]};
    CHECK(check_swiglu(p, isa).ok());
    run_tasks(swiglu_tasks(p), 1, [&](size_t i) { run_swiglu_task(p, isa, i); });
    std::vector<double> expected;
    for (int64_t i = 0; i < y.size(); ++i) {
      const float* gate = x.data() + i / c[1] * 2 * c[1] + i % c[1];
      expected.push_back(*gate / (1.0 + std::exp(-static_cast<double>(*gate))) * gate[c[1]]);
    }
    CHECK(distance(y, expected) <= 5e-6);  // up to 16, some ulp
    p.y = threaded.data();
    run_tasks(swiglu_tasks(p), kThreads, [&](size_t i) { run_swiglu_task(p, isa, i); });
    CHECK(threaded.equals(y));
  }
}

void test_swiglu_bad_arguments_are_refused(Isa isa) {
  Floats x(8, 1.0f), y(4);
  const auto refused = [&](void (*change)(SwiGluParams*)) {
    SwiGluParams p{x.data(), y.data(), 1, 4};
    change(&p);
    return check_swiglu(p, isa).code == Code::kBadArgument;
  };
  CHECK(!refused([](SwiGluParams*) {}));
  CHECK(refused([](SwiGluParams* p) { p->n_rows = -1; }));
  CHECK(refused([](SwiGluParams* p) { p->n_columns = 0; }));
  CHECK(refused([](SwiGluParams* p) { p->x = nullptr; }));
  CHECK(refused([](SwiGluParams* p) { p->y = nullptr; }));
}

// ---- RMSNorm

void test_rms_norm_any_size_matches_definition(Isa isa) {
  const int64_t cases[][2] = {{1, 1},  {1, 7},   {6, 65},   {5, 31},  {5, 33},
                              {0, 32}, {9, 576}, {300, 48}, {3, 2047}};
  for (const auto& c : cases) {
    Random random(static_cast<uint32_t>(c[1]));
    const int64_t n = c[0] * c[1];
    const Floats x = random.floats(n), residual = random.floats(n);
    const Floats weight = random.floats(c[1], 0.2f, 1.0f);
    Floats y(n, -9.0f), sum(n, -9.0f), only(n, -9.0f), in_place = residual;
    AddNormParams p{};
    p.x = x.data();
    p.residual = residual.data();
    p.weight = weight.data();
    p.y = y.data();
    p.n_rows = c[0];
    p.n_columns = c[1];
    p.epsilon = 1e-5f;
    p.is_rms = true;
    p.sum = sum.data();
    CHECK(check_add_norm(p, isa).ok());
    run_tasks(add_norm_tasks(p), 1, [&](size_t i) { run_add_norm_task(p, isa, i); });
    std::vector<double> expected, total;
    for (int64_t i = 0; i < n; ++i) {
      const float* row = sum.data() + i / c[1] * c[1];
      expected.push_back(sum[i] * shrink(row, c[1], p.epsilon) * weight[i % c[1]]);
      total.push_back(x[i] + residual[i]);
    }
    CHECK(distance(sum, total) == 0);
    CHECK(distance(y, expected) <= 3e-6);  // a sum of N terms: a few ulp
    p.residual = p.sum = in_place.data();
    Floats threaded(n, -9.0f);
    p.y = threaded.data();
    run_tasks(add_norm_tasks(p), kThreads, [&](size_t i) { run_add_norm_task(p, isa, i); });
    CHECK(threaded.equals(y));
    CHECK(in_place.equals(sum));
    p.x = sum.data();
    p.residual = nullptr;
    p.sum = nullptr;
    p.y = only.data();
    CHECK(check_add_norm(p, isa).ok());
    run_tasks(add_norm_tasks(p), kThreads, [&](size_t i) { run_add_norm_task(p, isa, i); });
    CHECK(only.equals(y));
  }
}

void test_rms_norm_bad_arguments_are_refused(Isa isa) {
  Floats one(4, 1.0f);
  const auto refused = [&](void (*change)(AddNormParams*)) {
    AddNormParams p{};
    p.x = p.residual = p.weight = p.y = one.data();
    p.n_rows = 1;
    p.n_columns = 4;
    p.is_rms = true;
    change(&p);
    return check_add_norm(p, isa).code == Code::kBadArgument;
  };
  CHECK(!refused([](AddNormParams*) {}));
  CHECK(refused([](AddNormParams* p) { p->is_rms = false; }));
  CHECK(refused([](AddNormParams* p) { p->bias = p->weight; }));
  CHECK(refused([](AddNormParams* p) {
    p->sum = p->y;
    p->residual = nullptr;
  }));
}

void test_rms_reward_head_matches_definition(Isa isa) {
  const int64_t cases[][2] = {{1, 2}, {7, 3}, {67, 7}, {399, 5}, {576, 6}};  // H, V
  for (const auto& c : cases) {
    for (bool has_row_bias : {false, true}) {
      constexpr int64_t kPooled = 3;
      Random random(static_cast<uint32_t>(c[0]));
      const Floats hidden = random.floats(kPooled * c[0]);
      const Floats weight = random.floats(c[0], 0.2f, 1.0f);
      const Floats rows = random.floats(c[1] * c[0], 1.7f / std::sqrt(static_cast<float>(c[0])));
      const Floats row_bias = random.floats(c[1]);
      Floats calibration(2), reward(kPooled), compliance(kPooled);
      calibration[0] = 1.0f;
      const std::vector<int64_t> pooled_at{2, -1, 0};
      RewardHeadParams p{};
      p.hidden = hidden.data();
      p.pooled_at = pooled_at.data();
      p.norm_weight = weight.data();
      p.rows = rows.data();
      p.row_bias = has_row_bias ? row_bias.data() : nullptr;
      p.calibration = calibration.data();
      p.reward = reward.data();
      p.compliance = compliance.data();
      p.n_batch = 1;
      p.n_tokens = p.n_pooled = kPooled;
      p.n_hidden = c[0];
      p.n_verbalizers = c[1];
      p.n_safe = 1;
      p.epsilon = 1e-5f;
      p.is_rms = true;
      CHECK(reward_head(p, isa).ok());
      std::vector<double> expected;
      for (int64_t at : pooled_at) {
        const float* x = hidden.data() + std::max<int64_t>(at, 0) * c[0];
        double unsafe = 0, safe = 0;
        for (int64_t v = 0; at >= 0 && v < c[1]; ++v) {
          double logit = has_row_bias ? row_bias[v] : 0.0f;
          for (int64_t h = 0; h < c[0]; ++h) {
            logit += rows[v * c[0] + h] * x[h] * shrink(x, c[0], p.epsilon) * weight[h];
          }
          (v == 0 ? safe : unsafe) += std::exp(logit);
        }
        expected.push_back(at < 0 ? NAN : std::log(safe) - std::log(unsafe));
      }
      CHECK(distance(reward, expected) <= 2e-5);
    }
  }
}

// ---- Linear

void test_linear_without_bias_is_linear_with_zeros(Isa isa) {
  for (bool has_gelu : {false, true}) {
    Random random(5);
    constexpr int64_t kRows = 7, kIn = 65, kOut = 100;
    const Floats x = random.floats(kRows * kIn), weight = random.floats(kIn * kOut), zeros(kOut);
    LinearParams p{};
    p.dense = weight.data();
    p.bias = zeros.data();
    p.n_in = kIn;
    p.n_out = kOut;
    p.has_gelu = has_gelu;
    const Result<Linear> with = Linear::make(p, isa);
    p.bias = nullptr;
    const Result<Linear> without = Linear::make(p, isa);
    CHECK(with.ok() && without.ok());
    if (!with.ok() || !without.ok()) continue;
    Floats y(kRows * kOut), other = y;
    run_tasks(with.value().n_tasks(kRows), 1,
              [&](size_t i) { with.value().run_task(x.data(), kRows, y.data(), i); });
    run_tasks(without.value().n_tasks(kRows), 1,
              [&](size_t i) { without.value().run_task(x.data(), kRows, other.data(), i); });
    CHECK(other.equals(y));
  }
}

}  // namespace

int main(int argc, char** argv) {
  return csrm_test::run_isa_tests(
      argc, argv,
      {test_rope_any_size_matches_definition, test_rope_bad_arguments_are_refused,
       test_swiglu_any_size_matches_definition, test_swiglu_bad_arguments_are_refused,
       test_rms_norm_any_size_matches_definition, test_rms_norm_bad_arguments_are_refused,
       test_rms_reward_head_matches_definition, test_linear_without_bias_is_linear_with_zeros});
}
