// Every kernel in one version (the instruction set named on the command line) against its
// definition in double; tasks on one thread and on several; arguments that must be refused. Made
// for the sanitizers: each array ends where its memory ends. Not: the kernels inside ONNX Runtime
// and their full case tables (tests/python/test_kernels.py, test_linear.py and others).
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "check.h"
#include "isa_tests.h"
#include "kernel_data.h"
#include "kernels/add_norm.h"
#include "kernels/amx.h"
#include "kernels/half.h"
#include "kernels/linear.h"
#include "kernels/prefix_attention.h"
#include "kernels/reward_head.h"

namespace {

using csrm::Code;
using csrm::Result;
using csrm::kernels::AddNormParams;
using csrm::kernels::from_half;
using csrm::kernels::has_bf16_products;
using csrm::kernels::Isa;
using csrm::kernels::Linear;
using csrm::kernels::LinearParams;
using csrm::kernels::PrefixAttentionParams;
using csrm::kernels::RewardHeadParams;
using csrm::kernels::to_half;
using csrm_test::distance;
using csrm_test::Floats;
using csrm_test::Random;
using csrm_test::run_tasks;

constexpr int kThreads = 3;

// ---- Linear

struct LinearCase {
  int64_t n_rows, n_in, n_out;
  bool has_gelu, is_int8;
};

struct LinearData {
  Floats x, dense, scale, bias;
  std::vector<int8_t> values;

  explicit LinearData(const LinearCase& c)
      : x(0), dense(c.n_in * c.n_out), scale(c.n_out), bias(c.n_out) {
    Random random(static_cast<uint32_t>(c.n_in * 131 + c.n_out));
    x = random.floats(c.n_rows * c.n_in);
    bias = random.floats(c.n_out);
    for (int64_t n = 0; n < c.n_out; ++n) {
      scale[n] = (1.0f + random.number(0.5f)) / (73.0f * std::sqrt(static_cast<float>(c.n_in)));
    }
    values.resize(static_cast<size_t>(c.n_in * c.n_out));
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<int8_t>(random.below(255) - 127);
      const auto at = static_cast<int64_t>(i);
      dense[at] = static_cast<float>(values[i]) * scale[at % c.n_out];
    }
  }
  LinearParams params(const LinearCase& c) const {
    LinearParams p{};
    p.values = c.is_int8 ? values.data() : nullptr;
    p.scale = c.is_int8 ? scale.data() : nullptr;
    p.dense = c.is_int8 ? nullptr : dense.data();
    p.bias = bias.data();
    p.n_in = c.n_in;
    p.n_out = c.n_out;
    p.has_gelu = c.has_gelu;
    return p;
  }
};

std::vector<double> linear_definition(const LinearCase& c, const LinearData& d) {
  std::vector<double> y;
  for (int64_t m = 0; m < c.n_rows; ++m) {
    for (int64_t n = 0; n < c.n_out; ++n) {
      double sum = d.bias[n];
      for (int64_t k = 0; k < c.n_in; ++k) {
        sum += static_cast<double>(d.x[m * c.n_in + k]) * d.dense[k * c.n_out + n];
      }
      y.push_back(c.has_gelu ? 0.5 * sum * (1.0 + std::erf(sum / std::sqrt(2.0))) : sum);
    }
  }
  return y;
}

void test_linear_any_size_matches_definition(Isa isa) {
  const LinearCase cases[] = {
      {1, 1, 1, false, true},      {1, 7, 5, false, true},     {6, 65, 40, true, true},
      {0, 16, 48, false, true},    {5, 100, 3, true, true},    {9, 33, 65, true, true},
      {2, 31, 63, false, true},    {13, 1000, 33, true, true}, {300, 48, 80, false, true},
      {7, 96, 100, true, false},   {3, 40, 700, true, true},   {129, 24, 130, false, false},
      {1, 384, 1152, false, true},
  };
  for (const LinearCase& c : cases) {
    const LinearData d(c);
    const Result<Linear> made = Linear::make(d.params(c), isa);
    CHECK(made.ok());
    if (!made.ok()) continue;
    const Linear& linear = made.value();
    const size_t n_tasks = linear.n_tasks(c.n_rows);
    Floats y(c.n_rows * c.n_out, -9.0f), threaded = y;
    run_tasks(n_tasks, 1, [&](size_t i) { linear.run_task(d.x.data(), c.n_rows, y.data(), i); });
    run_tasks(n_tasks, kThreads,
              [&](size_t i) { linear.run_task(d.x.data(), c.n_rows, threaded.data(), i); });
    CHECK(distance(y, linear_definition(c, d)) <= 1e-5);  // K additions: a few ulp
    CHECK(y.equals(threaded));
    for (int64_t m = 0; m < std::min<int64_t>(c.n_rows, 7); ++m) {
      Floats one(c.n_out), row(c.n_in);
      std::copy_n(d.x.data() + m * c.n_in, c.n_in, row.data());
      run_tasks(linear.n_tasks(1), 1,
                [&](size_t i) { linear.run_task(row.data(), 1, one.data(), i); });
      CHECK(std::memcmp(one.data(), y.data() + m * c.n_out,
                        sizeof(float) * static_cast<size_t>(c.n_out)) == 0);
    }
  }
}

void test_linear_bad_arguments_are_refused(Isa isa) {
  const LinearCase c{1, 3, 2, false, true};
  const LinearData d(c);
  const auto refused = [&](void (*change)(LinearParams*)) {
    LinearParams p = d.params(c);
    change(&p);
    return Linear::make(p, isa).status().code == Code::kBadArgument;
  };
  CHECK(refused([](LinearParams* p) { p->n_in = 0; }));
  CHECK(refused([](LinearParams* p) { p->n_out = -1; }));
  CHECK(refused([](LinearParams* p) { p->values = nullptr; }));
  CHECK(refused([](LinearParams* p) { p->scale = nullptr; }));
  CHECK(refused([](LinearParams* p) { p->dense = p->bias; }));
}

// ---- AddNorm

void test_add_norm_any_size_matches_definition(Isa isa) {
  const struct {
    int64_t rows, columns;
  } cases[] = {{1, 1}, {1, 7}, {6, 65}, {5, 31}, {5, 33}, {0, 32}, {9, 768}, {700, 48}, {3, 2047}};
  for (const auto& c : cases) {
    Random random(static_cast<uint32_t>(c.columns));
    const int64_t n = c.rows * c.columns;
    const Floats x = random.floats(n), residual = random.floats(n);
    const Floats weight = random.floats(c.columns, 0.2f, 1.0f), bias = random.floats(c.columns);
    Floats y(n, -9.0f), in_place = x;
    AddNormParams p{};
    p.x = x.data();
    p.residual = residual.data();
    p.weight = weight.data();
    p.bias = bias.data();
    p.y = y.data();
    p.n_rows = c.rows;
    p.n_columns = c.columns;
    p.epsilon = 1e-5f;
    CHECK(check_add_norm(p, isa).ok());
    run_tasks(add_norm_tasks(p), 1, [&](size_t i) { run_add_norm_task(p, isa, i); });
    std::vector<double> expected;
    for (int64_t m = 0; m < c.rows; ++m) {
      std::vector<double> row;
      double mean = 0, variance = 0;
      for (int64_t k = m * c.columns; k < (m + 1) * c.columns; ++k) {
        row.push_back(x[k] + residual[k]);
        mean += row.back() / static_cast<double>(c.columns);
      }
      for (const double v : row)
        variance += (v - mean) * (v - mean) / static_cast<double>(c.columns);
      const double scale = 1.0 / std::sqrt(variance + static_cast<double>(p.epsilon));
      for (size_t k = 0; k < row.size(); ++k) {
        const auto at = static_cast<int64_t>(k);
        expected.push_back((row[k] - mean) * scale * weight[at] + bias[at]);
      }
    }
    CHECK(distance(y, expected) <= 5e-6);  // two sums of N terms: a few ulp
    p.x = p.y = in_place.data();
    run_tasks(add_norm_tasks(p), kThreads, [&](size_t i) { run_add_norm_task(p, isa, i); });
    CHECK(in_place.equals(y));
  }
}

void test_add_norm_bad_arguments_are_refused(Isa isa) {
  Floats one(4, 1.0f);
  const auto refused = [&](void (*change)(AddNormParams*)) {
    AddNormParams p{};
    p.x = p.residual = p.weight = p.bias = p.y = one.data();
    p.n_rows = 1;
    p.n_columns = 4;
    change(&p);
    return check_add_norm(p, isa).code == Code::kBadArgument;
  };
  CHECK(!refused([](AddNormParams*) {}));
  CHECK(refused([](AddNormParams* p) { p->n_rows = -1; }));
  CHECK(refused([](AddNormParams* p) { p->n_columns = 0; }));
  CHECK(refused([](AddNormParams* p) { p->epsilon = -1.0f; }));
  CHECK(refused([](AddNormParams* p) { p->epsilon = INFINITY; }));
  CHECK(refused([](AddNormParams* p) { p->x = nullptr; }));
  CHECK(refused([](AddNormParams* p) { p->weight = nullptr; }));
  CHECK(refused([](AddNormParams* p) { p->bias = nullptr; }));
  CHECK(refused([](AddNormParams* p) { p->y = nullptr; }));
}

// ---- PrefixAttention

struct AttentionCase {
  int64_t n_batch, n_queries, n_tokens, n_prefix, n_heads, n_kv_heads, head_dim, n_layers, layer;
};

struct AttentionData {
  Floats query, key_value, prefix_key, prefix_value, context;
  std::vector<uint16_t> half_key, half_value;
  std::vector<int64_t> visible;
  PrefixAttentionParams p{};

  explicit AttentionData(const AttentionCase& c, bool is_half = false)
      : query(0), key_value(0), prefix_key(0), prefix_value(0), context(0) {
    Random random(static_cast<uint32_t>(c.n_tokens * 97 + c.head_dim));
    const int64_t width = c.n_heads * c.head_dim, own = c.n_kv_heads * c.head_dim;
    const int64_t n_prefix = c.n_layers * c.n_kv_heads * c.n_prefix * c.head_dim;
    p.query_offset = 3;  // columns that are nobody's stand before, between and behind
    p.query_width = width + 5;
    p.key_offset = 1;
    p.value_offset = own + 2;
    p.key_value_width = 2 * own + 4;
    query = random.floats(c.n_batch * c.n_queries * p.query_width);
    key_value = random.floats(c.n_batch * c.n_tokens * p.key_value_width);
    prefix_key = random.floats(n_prefix);
    prefix_value = random.floats(n_prefix);
    visible = random.integers(c.n_batch * c.n_queries, 0, c.n_tokens);
    context = Floats(c.n_batch * c.n_queries * width, -9.0f);
    p.query = query.data();
    p.key_value = key_value.data();
    p.prefix_key = prefix_key.data();
    p.prefix_value = prefix_value.data();
    if (is_half) {
      half_key = rounded(&prefix_key);
      half_value = rounded(&prefix_value);
      p.prefix_key = half_key.data();
      p.prefix_value = half_value.data();
      p.is_half = true;
    }
    p.visible = visible.data();
    p.context = context.data();
    p.n_batch = c.n_batch;
    p.n_queries = c.n_queries;
    p.n_tokens = c.n_tokens;
    p.n_prefix = c.n_prefix;
    p.n_heads = c.n_heads;
    p.n_kv_heads = c.n_kv_heads;
    p.head_dim = c.head_dim;
    p.n_layers = c.n_layers;
    p.layer = c.layer;
    p.scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  }

 private:
  static std::vector<uint16_t> rounded(Floats* from) {
    std::vector<uint16_t> result;
    for (int64_t i = 0; i < from->size(); ++i) {
      result.push_back(to_half((*from)[i]));
      (*from)[i] = from_half(result.back());
    }
    return result;
  }
};

// One head of one query, appended to `context`.
void attend(const AttentionData& data, int64_t row, int64_t head, std::vector<double>* context) {
  const PrefixAttentionParams& p = data.p;
  const int64_t kv = head * p.n_kv_heads / p.n_heads, batch = row / p.n_queries;
  const float* query = p.query + row * p.query_width + p.query_offset + head * p.head_dim;
  using Vectors = std::vector<std::vector<float>>;
  Vectors keys, values;
  const auto add = [&](Vectors* to, const float* from) {
    to->emplace_back(from, from + p.head_dim);
    for (float& number : to->back()) {
      if (p.is_half) number = from_half(to_half(number));
    }
  };
  for (int64_t k = 0; k < p.n_prefix; ++k) {
    const int64_t at = ((p.layer * p.n_kv_heads + kv) * p.n_prefix + k) * p.head_dim;
    add(&keys, data.prefix_key.data() + at);
    add(&values, data.prefix_value.data() + at);
  }
  for (int64_t k = 0; k < p.visible[row]; ++k) {
    const float* own = p.key_value + (batch * p.n_tokens + k) * p.key_value_width;
    add(&keys, own + p.key_offset + kv * p.head_dim);
    add(&values, own + p.value_offset + kv * p.head_dim);
  }
  std::vector<double> weights;
  double highest = -INFINITY, total = 0;
  for (const std::vector<float>& key : keys) {
    double score = 0;
    for (size_t d = 0; d < key.size(); ++d) score += static_cast<double>(query[d]) * key[d];
    weights.push_back(score * p.scale);
    highest = std::max(highest, weights.back());
  }
  for (double& weight : weights) total += weight = std::exp(weight - highest);
  for (size_t d = 0; d < static_cast<size_t>(p.head_dim); ++d) {
    double sum = 0;
    for (size_t k = 0; k < values.size(); ++k) sum += weights[k] * values[k][d];
    context->push_back(values.empty() ? 0.0 : sum / total);
  }
}

void check_prefix_attention_of(const AttentionCase& c, bool is_half, bool is_bf16, Isa isa) {
  AttentionData d(c, is_half);
  d.p.is_bf16 = is_bf16;
  const double tolerance = has_bf16_products(d.p, isa) ? 2e-2 : 3e-6;  // bf16 rounds by 2^-9
  CHECK(check_prefix_attention(d.p, isa).ok());
  const size_t n_tasks = prefix_attention_tasks(d.p, isa);
  run_tasks(n_tasks, 1, [&](size_t i) { CHECK(run_prefix_attention_task(d.p, isa, i)); });
  std::vector<double> expected;
  for (int64_t row = 0; row < c.n_batch * c.n_queries; ++row) {
    for (int64_t head = 0; head < c.n_heads; ++head) attend(d, row, head, &expected);
  }
  CHECK(distance(d.context, expected) <= tolerance);
  Floats threaded(d.context.size(), -9.0f);
  d.p.context = threaded.data();
  run_tasks(n_tasks, kThreads, [&](size_t i) { (void)run_prefix_attention_task(d.p, isa, i); });
  CHECK(threaded.equals(d.context));
}

void test_prefix_attention_any_size_matches_definition(Isa isa) {
  const AttentionCase cases[] = {
      {1, 1, 1, 0, 1, 1, 1, 1, 0},      {2, 1, 1, 70, 2, 2, 32, 1, 0},
      {2, 37, 37, 0, 2, 2, 32, 1, 0},   {3, 61, 61, 67, 2, 2, 64, 3, 1},
      {2, 33, 33, 65, 3, 3, 65, 1, 0},  {2, 9, 9, 3, 2, 2, 7, 2, 1},
      {2, 29, 29, 80, 6, 2, 32, 1, 0},  {2, 3, 40, 64, 4, 1, 64, 1, 0},
      {1, 5, 20, 130, 2, 2, 128, 1, 0}, {40, 5, 5, 128, 2, 2, 32, 1, 0},
      {0, 6, 6, 10, 2, 2, 32, 1, 0},    {2, 4, 0, 10, 2, 2, 32, 1, 0},
      {2, 4, 0, 0, 2, 2, 8, 1, 0},      {5, 3, 40, 390, 2, 2, 96, 1, 0},
  };
  for (const AttentionCase& c : cases) {
    for (const bool is_half : {false, true}) {
      for (const bool is_bf16 : {false, true}) check_prefix_attention_of(c, is_half, is_bf16, isa);
    }
  }
}

void test_prefix_attention_bf16_products_are_those_of_amx(Isa isa) {
  AttentionData d({1, 1, 1, 0, 1, 1, 64, 1, 0});
  CHECK(!has_bf16_products(d.p, isa));
  d.p.is_bf16 = true;
  CHECK(has_bf16_products(d.p, isa) == (isa == Isa::kAmx && csrm::kernels::has_amx_bf16()));
  d.p.head_dim = 65;
  CHECK(!has_bf16_products(d.p, isa));
}

void test_prefix_attention_bad_arguments_are_refused(Isa isa) {
  const auto refused = [&](void (*change)(AttentionData*)) {
    AttentionData d({2, 3, 4, 5, 4, 2, 8, 2, 1});
    change(&d);
    return check_prefix_attention(d.p, isa).code == Code::kBadArgument;
  };
  CHECK(!refused([](AttentionData*) {}));
  CHECK(refused([](AttentionData* d) { d->p.n_batch = -1; }));
  CHECK(refused([](AttentionData* d) { d->p.n_prefix = -1; }));
  CHECK(refused([](AttentionData* d) { d->p.n_kv_heads = 3; }));
  CHECK(refused([](AttentionData* d) { d->p.n_kv_heads = 0; }));
  CHECK(refused([](AttentionData* d) { d->p.head_dim = 0; }));
  CHECK(refused([](AttentionData* d) { d->p.layer = 2; }));
  CHECK(refused([](AttentionData* d) { d->p.layer = -1; }));
  CHECK(refused([](AttentionData* d) { d->p.scale = NAN; }));
  CHECK(refused([](AttentionData* d) { d->p.query_offset = 6; }));
  CHECK(refused([](AttentionData* d) { d->p.key_offset = -1; }));
  CHECK(refused([](AttentionData* d) { d->p.value_offset = 21; }));
  CHECK(refused([](AttentionData* d) { d->visible[5] = 5; }));
  CHECK(refused([](AttentionData* d) { d->visible[0] = -1; }));
  CHECK(refused([](AttentionData* d) { d->p.query = nullptr; }));
  CHECK(refused([](AttentionData* d) { d->p.key_value = nullptr; }));
  CHECK(refused([](AttentionData* d) { d->p.prefix_value = nullptr; }));
  CHECK(refused([](AttentionData* d) { d->p.visible = nullptr; }));
  CHECK(refused([](AttentionData* d) { d->p.context = nullptr; }));
}

// ---- RewardHead

struct HeadData {
  Floats hidden, norm_weight, norm_bias, rows, row_bias, calibration, reward, compliance;
  std::vector<int64_t> pooled_at;
  RewardHeadParams p{};

  HeadData(int64_t n_batch, int64_t n_tokens, int64_t n_pooled, int64_t n_hidden, int64_t n_rows,
           int64_t n_safe)
      : hidden(0),
        norm_weight(0),
        norm_bias(0),
        rows(0),
        row_bias(0),
        calibration(2),
        reward(n_batch * n_pooled, -9.0f),
        compliance(n_batch * n_pooled, -9.0f) {
    Random random(static_cast<uint32_t>(n_hidden * 31 + n_rows));
    hidden = random.floats(n_batch * n_tokens * n_hidden);
    norm_weight = random.floats(n_hidden, 0.2f, 1.0f);
    norm_bias = random.floats(n_hidden, 0.2f);
    rows = random.floats(n_rows * n_hidden, 1.7f / std::sqrt(static_cast<float>(n_hidden)));
    row_bias = random.floats(n_rows);
    calibration[0] = 1.25f;
    calibration[1] = -0.5f;
    pooled_at = random.integers(n_batch * n_pooled, -1, n_tokens - 1);
    p.hidden = hidden.data();
    p.pooled_at = pooled_at.data();
    p.norm_weight = norm_weight.data();
    p.norm_bias = norm_bias.data();
    p.rows = rows.data();
    p.row_bias = row_bias.data();
    p.calibration = calibration.data();
    p.reward = reward.data();
    p.compliance = compliance.data();
    p.n_batch = n_batch;
    p.n_tokens = n_tokens;
    p.n_pooled = n_pooled;
    p.n_hidden = n_hidden;
    p.n_verbalizers = n_rows;
    p.n_safe = n_safe;
    p.epsilon = 1e-5f;
  }
};

double head_definition(const HeadData& d, int64_t i) {
  const RewardHeadParams& p = d.p;
  const float* x = p.hidden + (i / p.n_pooled * p.n_tokens + p.pooled_at[i]) * p.n_hidden;
  const auto n = static_cast<double>(p.n_hidden);
  double mean = 0, variance = 0;
  for (int64_t h = 0; h < p.n_hidden; ++h) mean += x[h] / n;
  for (int64_t h = 0; h < p.n_hidden; ++h) variance += (x[h] - mean) * (x[h] - mean) / n;
  const double scale = 1.0 / std::sqrt(variance + static_cast<double>(p.epsilon));
  double safe = 0, unsafe = 0;  // the logits are small enough for plain exponentials
  for (int64_t v = 0; v < p.n_verbalizers; ++v) {
    double logit = p.row_bias[v];
    for (int64_t h = 0; h < p.n_hidden; ++h) {
      logit +=
          p.rows[v * p.n_hidden + h] * ((x[h] - mean) * scale * p.norm_weight[h] + p.norm_bias[h]);
    }
    (v < p.n_safe ? safe : unsafe) += std::exp(logit);
  }
  return std::log(safe) - std::log(unsafe);
}

void test_reward_head_any_size_matches_definition(Isa isa) {
  const int64_t cases[][6] = {
      {1, 1, 1, 1, 2, 1},    {3, 5, 2, 7, 3, 1},   {2, 9, 3, 64, 4, 2},
      {4, 16, 2, 385, 7, 5}, {2, 8, 1, 399, 5, 1}, {2, 4, 16, 384, 2, 1},
      {2, 3, 4, 40, 64, 60}, {0, 4, 1, 384, 2, 1}, {2, 4, 0, 384, 2, 1},
  };
  for (const auto& c : cases) {
    HeadData d(c[0], c[1], c[2], c[3], c[4], c[5]);
    CHECK(reward_head(d.p, isa).ok());
    std::vector<double> rewards, compliances;
    for (int64_t i = 0; i < c[0] * c[2]; ++i) {
      const bool is_none = d.pooled_at[static_cast<size_t>(i)] < 0;
      rewards.push_back(is_none ? NAN : head_definition(d, i));
      compliances.push_back(1.0 / (1.0 + std::exp(-(1.25 * rewards.back() - 0.5))));
    }
    CHECK(distance(d.reward, rewards) <= 2e-5);
    CHECK(distance(d.compliance, compliances) <= 2e-5);
  }
}

void test_reward_head_bad_arguments_are_refused(Isa isa) {
  const auto refused = [&](void (*change)(HeadData*)) {
    HeadData d(2, 3, 2, 9, 4, 2);
    change(&d);
    const bool is_bad = reward_head(d.p, isa).code == Code::kBadArgument;
    return is_bad && d.reward[0] == -9.0f && d.compliance[3] == -9.0f;
  };
  CHECK(!refused([](HeadData*) {}));
  CHECK(refused([](HeadData* d) { d->p.n_batch = -1; }));
  CHECK(refused([](HeadData* d) { d->p.n_hidden = 0; }));
  CHECK(refused([](HeadData* d) { d->p.n_verbalizers = 65; }));
  CHECK(refused([](HeadData* d) { d->p.n_safe = 4; }));
  CHECK(refused([](HeadData* d) { d->p.n_safe = 0; }));
  CHECK(refused([](HeadData* d) { d->p.epsilon = NAN; }));
  CHECK(refused([](HeadData* d) { d->pooled_at[3] = 3; }));
  CHECK(refused([](HeadData* d) { d->p.hidden = nullptr; }));
  CHECK(refused([](HeadData* d) { d->p.calibration = nullptr; }));
  CHECK(refused([](HeadData* d) { d->p.pooled_at = nullptr; }));
}

}  // namespace

int main(int argc, char** argv) {
  return csrm_test::run_isa_tests(
      argc, argv,
      {test_linear_any_size_matches_definition, test_linear_bad_arguments_are_refused,
       test_add_norm_any_size_matches_definition, test_add_norm_bad_arguments_are_refused,
       test_prefix_attention_any_size_matches_definition,
       test_prefix_attention_bf16_products_are_those_of_amx,
       test_prefix_attention_bad_arguments_are_refused,
       test_reward_head_any_size_matches_definition, test_reward_head_bad_arguments_are_refused});
}
