// Checks of RewardHead and AddNorm on a GPU against their CPU versions, on the cases of
// csrm.kernels and some of their own. Inputs are random; those the kernel gets in 16 bits are
// rounded first for both sides, so errors are those of the arithmetic and of a rounded result.
#include <algorithm>
#include <cmath>

#include "cases.h"
#include "harness.h"
#include "kernels/add_norm.h"
#include "kernels/cuda/add_norm.h"
#include "kernels/cuda/reward_head.h"
#include "kernels/reward_head.h"

namespace csrm_test {
namespace {

namespace cpu = csrm::kernels;
namespace gpu = csrm::kernels::cuda;

constexpr float kMaxHalfSize = 1000;  // 1e15, the size of the "huge" cases, is infinite in fp16

// A result of AddNorm is rounded to nearest, by up to 2^-9 and 2^-12 of the binade above it.
double rounding_of(DType dtype) { return dtype == DType::kBFloat16 ? 3e-3 : 4e-4; }

std::string named(const char* kernel, const char* name, DType dtype) {
  return std::string(kernel) + " " + name + " " + gpu::dtype_name(dtype);
}

constexpr RewardHeadCase kMoreHeads[] = {
    {"decoder_8b", 8, 16, 1, 4096, 12, 6, Pooling::kRandom, 1, 0, 1, 1e-5f, 5e-6f},
    {"all_verbalizers", 2, 3, 2, 1025, 64, 63, Pooling::kMixed, 1, 0, 1, 1e-5f, 5e-6f},
    {"batch_1000", 1000, 2, 3, 384, 2, 1, Pooling::kMixed, 1, 0, 1, 1e-12f, 5e-6f},
};

std::vector<int64_t> pooled_tokens(const RewardHeadCase& c, Random& random) {
  std::vector<int64_t> at(static_cast<size_t>(c.batch) * c.pooled);
  for (int64_t& t : at) {
    t = random.below(c.tokens);
    if (c.pooling == Pooling::kNone || (c.pooling == Pooling::kMixed && random.below(2) == 0)) {
      t = -1;
    }
    if (c.pooling == Pooling::kRepeated) t = c.tokens - 1;
  }
  return at;
}

// The tensors of a case on the host, and the CPU's answer.
struct Head {
  std::vector<float> hidden, norm_weight, norm_bias, rows, row_bias;
  std::vector<float> calibration{1.25f, -0.5f};
  std::vector<int64_t> pooled_at;
  std::vector<float> reward, compliance;
};

csrm::Status reference(const RewardHeadCase& c, Head& h) {
  const size_t n = h.pooled_at.size();
  h.reward.assign(n, 0);
  h.compliance.assign(n, 0);
  cpu::RewardHeadParams p{};
  p.hidden = h.hidden.data();
  p.pooled_at = h.pooled_at.data();
  p.norm_weight = h.norm_weight.data();
  p.norm_bias = c.is_rms ? nullptr : h.norm_bias.data();
  p.rows = h.rows.data();
  p.row_bias = c.is_rms ? nullptr : h.row_bias.data();
  p.calibration = h.calibration.data();
  p.reward = h.reward.data();
  p.compliance = h.compliance.data();
  p.n_batch = c.batch;
  p.n_tokens = c.tokens;
  p.n_pooled = c.pooled;
  p.n_hidden = c.hidden;
  p.n_verbalizers = c.verbalizers;
  p.n_safe = c.n_safe;
  p.epsilon = c.epsilon;
  p.is_rms = c.is_rms;
  return cpu::reward_head(p);
}

Head head_of(const RewardHeadCase& c, DType dtype) {
  Random random(seed_of(c.name));
  const auto width = static_cast<size_t>(c.hidden);
  const float size = dtype == DType::kFloat16 ? std::min(c.size, kMaxHalfSize) : c.size;
  Head h;
  h.hidden = random.normals(c.batch * c.tokens * width, size, c.offset);
  round_to(dtype, h.hidden);
  h.norm_weight = random.normals(width, 0.1f, 1);
  if (!c.is_rms) h.norm_bias = random.normals(width, 0.1f);
  h.rows = random.normals(c.verbalizers * width, c.logit_scale / std::sqrt(float(c.hidden)));
  if (!c.is_rms) h.row_bias = random.normals(c.verbalizers);
  h.pooled_at = pooled_tokens(c, random);
  return h;
}

// The head's tensors on the device, and its results there.
struct DeviceHead {
  DeviceArray hidden, pooled_at, norm_weight, norm_bias, rows, row_bias, calibration;
  DeviceArray reward, compliance;
  gpu::RewardHeadParams params{};

  DeviceHead(const RewardHeadCase& c, const Head& h, DType dtype)
      : hidden(h.hidden, dtype),
        pooled_at(h.pooled_at),
        norm_weight(h.norm_weight, DType::kFloat32),
        norm_bias(h.norm_bias, DType::kFloat32),
        rows(h.rows, DType::kFloat32),
        row_bias(h.row_bias, DType::kFloat32),
        calibration(h.calibration, DType::kFloat32),
        reward(h.pooled_at.size() * sizeof(float)),
        compliance(h.pooled_at.size() * sizeof(float)) {
    params.hidden = hidden.data();
    params.pooled_at = pooled_at.as<int64_t>();
    params.norm_weight = norm_weight.as<float>();
    params.norm_bias = norm_bias.as<float>();
    params.rows = rows.as<float>();
    params.row_bias = row_bias.as<float>();
    params.calibration = calibration.as<float>();
    params.reward = reward.as<float>();
    params.compliance = compliance.as<float>();
    params.n_batch = c.batch;
    params.n_tokens = c.tokens;
    params.n_pooled = c.pooled;
    params.n_hidden = c.hidden;
    params.n_verbalizers = c.verbalizers;
    params.n_safe = c.n_safe;
    params.epsilon = c.epsilon;
    params.dtype = dtype;
    params.is_rms = c.is_rms;
  }
};

void check_head(const RewardHeadCase& c, DType dtype, Report& report) {
  const std::string name = named("RewardHead", c.name, dtype);
  Head h = head_of(c, dtype);
  report.succeeds(name + " on the CPU", reference(c, h));
  DeviceHead device(c, h, dtype);
  report.succeeds(name, gpu::reward_head(device.params, nullptr));
  if (!synchronised()) return;
  const std::string group = std::string("RewardHead ") + gpu::dtype_name(dtype);
  const auto reward = device.reward.floats(DType::kFloat32);
  report.error(group, c.name, absolute_error(reward, h.reward), c.tolerance);
  report.error(group + " compliance", c.name,
               absolute_error(device.compliance.floats(DType::kFloat32), h.compliance),
               c.tolerance);
  report.expect(name, device.reward.guards_intact() && device.compliance.guards_intact(),
                "writes its results only");
  const auto bits = device.reward.bytes();
  device.reward.poison();
  report.succeeds(name, gpu::reward_head(device.params, nullptr));
  report.expect(name, device.reward.bytes() == bits, "two runs give equal bits");
  if (c.batch < 2) return;
  // The last entry alone.
  const size_t last = static_cast<size_t>(c.batch - 1);
  const size_t state_bytes = device.hidden.size() / c.batch;
  gpu::RewardHeadParams alone = device.params;
  alone.n_batch = 1;
  alone.hidden = device.hidden.as<unsigned char>() + last * state_bytes;
  alone.pooled_at += last * c.pooled;
  device.reward.poison();
  report.succeeds(name, gpu::reward_head(alone, nullptr));
  const auto one = device.reward.bytes();
  const size_t n = c.pooled * sizeof(float);
  report.expect(name, std::equal(one.begin(), one.begin() + n, bits.begin() + last * n),
                "an entry alone gives the bits it has in the batch");
}

void check_head_index_beyond_row(Report& report) {
  const RewardHeadCase c{"index", 2, 3, 2, 64, 2, 1, Pooling::kRandom, 1, 0, 1, 1e-5f, 5e-6f};
  Head h = head_of(c, DType::kFloat32);
  h.pooled_at = {0, 3, INT64_MAX, INT64_MIN};
  DeviceHead device(c, h, DType::kFloat32);
  report.succeeds("RewardHead index", gpu::reward_head(device.params, nullptr));
  const auto reward = device.reward.floats(DType::kFloat32);
  report.expect("RewardHead index",
                !std::isnan(reward[0]) && std::isnan(reward[1]) && std::isnan(reward[2]) &&
                    std::isnan(reward[3]),
                "an index outside the row gives NaN");
  gpu::RewardHeadParams bad = device.params;
  bad.n_safe = 2;
  report.expect("RewardHead n_safe",
                gpu::reward_head(bad, nullptr).code == csrm::Code::kBadArgument, "BadArgument");
  bad = device.params;
  bad.is_rms = true;
  report.expect("RewardHead with a bias and of kind rms",
                gpu::reward_head(bad, nullptr).code == csrm::Code::kBadArgument, "BadArgument");
}

constexpr AddNormCase kMoreNorms[] = {
    {"hidden_4096", 33, 4096, 1, 0, 1e-5f, 5e-6f},
    {"widest", 2, 16384, 1, 0, 1e-5f, 1e-5f},
    {"warp_512", 5, 512, 1, 0, 1e-5f, 5e-6f},
    {"two_warps_513", 5, 513, 1, 0, 1e-5f, 5e-6f},
    {"three_packs_12288", 2, 12288, 1, 0, 1e-5f, 1e-5f},
    {"rms_4096", 9, 4096, 1, 0, 1e-5f, 5e-6f, true},
    {"rms_nothing_added_4096", 9, 4096, 1, 0, 1e-5f, 5e-6f, true, false},
};

// The tensors of a case on the host, and the CPU's answer. Residual and sum are of `wide`.
struct Norm {
  std::vector<float> x, residual, weight, bias, y, sum;

  Norm(const AddNormCase& c, DType dtype, DType wide) {
    Random random(seed_of(c.name));
    const size_t n = static_cast<size_t>(c.rows) * c.columns;
    const float size = dtype == DType::kFloat16 ? std::min(c.size, kMaxHalfSize) : c.size;
    x = random.normals(n, size, c.offset);
    residual = random.normals(n, size);
    round_to(dtype, x);
    round_to(wide, residual);
    weight = random.normals(c.columns, 0.1f, 1);
    bias = random.normals(c.columns, 0.1f);
    y.resize(n);
    sum.resize(n);
    cpu::AddNormParams p{x.data(), residual.data(), weight.data(), bias.data(), y.data(),
                         c.rows,   c.columns,       c.epsilon,     c.is_rms,    sum.data()};
    if (c.is_rms) p.bias = nullptr;
    if (!c.adds) p.residual = p.sum = nullptr;
    for (size_t i = 0; i < cpu::add_norm_tasks(p); ++i) {
      cpu::run_add_norm_task(p, cpu::Isa::kBest, i);
    }
    round_to(wide, sum);  // what the device keeps of it
  }
};

// A case at one alignment: `shift` bytes off. `bits` are those of the first one.
void check_norm_at(const AddNormCase& c, DType dtype, DType wide, const Norm& h, size_t shift,
                   std::vector<unsigned char>& bits, Report& report) {
  const std::string name = named("AddNorm", c.name, dtype) + (wide == dtype ? "" : " over fp32");
  const size_t n = h.x.size();
  const DeviceArray weights(h.weight, DType::kFloat32), biases(h.bias, DType::kFloat32);
  const DeviceArray xs(h.x, dtype, shift), untouched(h.x, dtype, shift);
  const DeviceArray residuals(h.residual, wide, 2 * shift);
  DeviceArray y(n * gpu::dtype_bytes(dtype), shift), sum(n * gpu::dtype_bytes(wide), 2 * shift);
  gpu::AddNormParams p{xs.data(),          residuals.data(), weights.as<float>(),
                       biases.as<float>(), y.data(),         c.rows,
                       c.columns,          c.epsilon,        dtype,
                       wide != dtype,      c.is_rms,         sum.data()};
  if (c.is_rms) p.bias = nullptr;
  if (!c.adds) p.residual = p.sum = nullptr;
  report.succeeds(name, gpu::add_norm(p, nullptr));
  if (!synchronised()) return;
  const std::vector<float> out = y.floats(dtype);
  const bool is_exact = dtype == DType::kFloat32;
  report.error(std::string("AddNorm ") + gpu::dtype_name(dtype), c.name,
               is_exact ? absolute_error(out, h.y) : relative_error(out, h.y),
               is_exact ? c.tolerance : rounding_of(dtype));
  if (c.adds) report.expect(name, sum.floats(wide) == h.sum, "the sum is that of fp32, rounded");
  report.expect(name, y.guards_intact() && sum.guards_intact(), "writes its rows only");
  if (shift == 0) bits = y.bytes();
  report.expect(name, y.bytes() == bits, "another address gives equal bits");
  p.y = xs.data();  // in place
  if (c.adds) p.sum = residuals.as<void>();
  const std::vector<unsigned char> total = sum.bytes();
  report.succeeds(name, gpu::add_norm(p, nullptr));
  report.expect(name, xs.bytes() == bits, "in place gives equal bits");
  if (c.adds) report.expect(name, residuals.bytes() == total, "and an equal sum");
  if (c.rows < 2) return;
  const DeviceArray before(h.residual, wide, 2 * shift);
  const auto last = static_cast<size_t>(c.rows - 1);
  const size_t row_bytes = y.size() / c.rows;
  p.n_rows = 1;
  p.x = untouched.as<unsigned char>() + last * row_bytes;
  if (c.adds) p.residual = before.as<unsigned char>() + last * (before.size() / c.rows);
  p.y = y.data();
  p.sum = nullptr;
  y.poison();
  report.succeeds(name, gpu::add_norm(p, nullptr));
  const auto one = y.bytes();
  report.expect(name, std::equal(one.begin(), one.begin() + row_bytes, bits.end() - row_bytes),
                "a row alone, without its sum, gives the bits it has among others");
}

void check_norm(const AddNormCase& c, DType dtype, DType wide, Report& report) {
  const Norm host(c, dtype, wide);
  std::vector<unsigned char> bits;
  for (const size_t shift : {size_t{0}, gpu::dtype_bytes(dtype)}) {  // packs whole, then by element
    check_norm_at(c, dtype, wide, host, shift, bits, report);
  }
}

void check_norm_of_infinity(Report& report) {
  std::vector<float> x(3 * 70, 1.0f);
  x[70 + 5] = INFINITY;
  const DeviceArray xs(x, DType::kFloat16), weights(std::vector<float>(70, 1), DType::kFloat32);
  const DeviceArray y(xs.size());
  gpu::AddNormParams p{xs.data(), nullptr, weights.as<float>(), nullptr, y.data(), 3,
                       70,        1e-5f,   DType::kFloat16};
  p.is_rms = true;
  report.succeeds("AddNorm of infinity", gpu::add_norm(p, nullptr));
  const auto out = y.floats(DType::kFloat16);
  report.expect("AddNorm of infinity",
                std::isnan(out[70 + 5]) && !std::isnan(out[0]) && !std::isnan(out[2 * 70]),
                "is NaN, in its row alone");
  p.is_rms = false;
  report.expect("AddNorm without a bias",
                gpu::add_norm(p, nullptr).code == csrm::Code::kBadArgument, "BadArgument");
  p.is_rms = true;
  p.sum = y.data();
  report.expect("AddNorm sum of nothing",
                gpu::add_norm(p, nullptr).code == csrm::Code::kBadArgument, "BadArgument");
}

}  // namespace

std::vector<Check> row_checks(bool is_small) {
  std::vector<Check> checks;
  checks.push_back({"RewardHead index", check_head_index_beyond_row});
  checks.push_back({"AddNorm of infinity", check_norm_of_infinity});
  for (const DType dtype : kAllTypes) {
    const auto add_head = [&](const RewardHeadCase& c) {
      if (is_small && c.batch * c.tokens * c.hidden > 200000) return;
      checks.push_back({named("RewardHead", c.name, dtype),
                        [&c, dtype](Report& report) { check_head(c, dtype, report); }});
    };
    const auto add_norm = [&](const AddNormCase& c) {
      if (is_small && c.rows * c.columns > 50000) return;
      for (const DType wide : {dtype, DType::kFloat32}) {
        checks.push_back({named("AddNorm", c.name, dtype), [&c, dtype, wide](Report& report) {
                            check_norm(c, dtype, wide, report);
                          }});
        if (dtype == DType::kFloat32) break;
      }
    };
    for (const RewardHeadCase& c : kRewardHeadCases) add_head(c);
    for (const RewardHeadCase& c : kMoreHeads) add_head(c);
    for (const AddNormCase& c : kAddNormCases) add_norm(c);
    for (const AddNormCase& c : kMoreNorms) add_norm(c);
  }
  return checks;
}

}  // namespace csrm_test
