// Checks of PrefixAttention on a GPU against its CPU version, on the cases of csrm.kernels and some
// at the edges of tiles and parts. Inputs are random and rounded to the kernel's type for both
// sides.
//
// Bounds of ||out - reference|| / ||reference||, the reference being fp32: fp32, sums in another
// order; 16 bits, the weights and the result are rounded, each by an rms of about 1.6e-3 (bf16) or
// 2e-4 (fp16), and nothing else is. Three times the sum of both would let a wrong key pass in a row
// of thousands, so equal bits of cuts and entries are asked for as well.
#include <algorithm>
#include <cmath>
#include <limits>

#include "cases.h"
#include "harness.h"
#include "kernels/cuda/prefix_attention.h"
#include "kernels/prefix_attention.h"

namespace csrm_test {
namespace {

namespace cpu = csrm::kernels;
namespace gpu = csrm::kernels::cuda;
using gpu::AttentionSchedule;
using gpu::AttentionVersion;

constexpr AttentionCase kMoreCases[] = {
    {"prefix_256", 2, 70, 70, 256, 2, 2, 32, 1, 0, true, Sight::kRandom, 1},
    {"prefix_257", 2, 65, 65, 257, 2, 2, 32, 2, 1, true, Sight::kRandom, 1},
    {"prefix_511", 1, 64, 64, 511, 2, 2, 64, 1, 0, true, Sight::kCausal, 1},
    {"prefix_513_wide", 1, 63, 63, 513, 2, 2, 128, 1, 0, true, Sight::kCausal, 1},
    {"prefix_4097", 1, 128, 128, 4097, 2, 2, 32, 1, 0, true, Sight::kAll, 1},
    {"prefix_2", 3, 17, 17, 2, 1, 1, 32, 1, 0, true, Sight::kRandom, 1},
    {"own_parts", 2, 600, 600, 300, 1, 1, 32, 1, 0, true, Sight::kCausal, 1},
    {"own_parts_alone", 2, 300, 300, 0, 2, 2, 64, 1, 0, true, Sight::kRandom, 1},
    {"own_parts_turns", 1, 530, 530, 20, 1, 1, 32, 1, 0, true, Sight::kTurns, 1},
    {"tiles_of_64", 3, 200, 200, 300, 3, 3, 64, 2, 1, true, Sight::kRandom, 1},
    {"one_query_batch_32", 32, 1, 40, 300, 12, 12, 32, 1, 0, false, Sight::kRandom, 1},
    {"one_query_gqa_batch_3", 3, 1, 1, 1100, 32, 8, 128, 1, 0, true, Sight::kAll, 1},
    {"few_queries_batch_64", 64, 3, 7, 260, 4, 2, 64, 1, 0, false, Sight::kRandom, 1},
    {"decoder_8b", 2, 40, 40, 600, 32, 8, 128, 1, 0, true, Sight::kCausal, 1},
    {"grouped_odd", 3, 13, 13, 129, 15, 3, 64, 1, 0, true, Sight::kRandom, 1},
    {"loud_parts", 2, 100, 100, 600, 2, 2, 64, 1, 0, true, Sight::kRandom, 20},
    {"head_of_200", 2, 9, 9, 40, 2, 1, 200, 1, 0, true, Sight::kRandom, 1},
};
constexpr int kPaddedTokens = 5, kTurnTokens = 21;  // as cases_attention.py has them

double bound_of(DType dtype, const AttentionCase& c) {
  if (dtype == DType::kBFloat16) return 5e-3;
  if (dtype == DType::kFloat16) return 8e-4;
  return c.loudness > 1 ? 3e-4 : 1e-5;  // loud scores have a large ulp
}

std::vector<int64_t> sights(const AttentionCase& c, Random& random) {
  std::vector<int64_t> visible(static_cast<size_t>(c.batch) * c.queries);
  for (size_t i = 0; i < visible.size(); ++i) {
    const int q = static_cast<int>(i) % c.queries;
    int seen = c.tokens;
    if (c.sight == Sight::kCausal) seen = q + 1;
    if (c.sight == Sight::kTurns) {
      seen = q < c.tokens - kPaddedTokens ? (q / kTurnTokens + 1) * kTurnTokens : 0;
      seen = std::min(seen, c.tokens - kPaddedTokens);
    }
    if (c.sight == Sight::kRandom) seen = random.below(c.tokens + 1);
    if (c.sight == Sight::kNone) seen = 0;
    visible[i] = std::min(seen, c.tokens);
  }
  return visible;
}

// The tensors of a case on the host, and the CPU's answer.
struct Attention {
  AttentionCase c;
  std::vector<float> query, key_value, prefix_key, prefix_value, context;  // query: if not fused
  std::vector<int64_t> visible;
  int64_t query_width, key_value_width, key_offset, value_offset;
  float scale;
};

Attention attention_of(const AttentionCase& c, DType dtype) {
  Random random(seed_of(c.name));
  Attention a;
  a.c = c;
  const int own = c.kv_heads * c.head_dim;
  a.key_offset = c.is_fused ? c.heads * c.head_dim : 0;
  a.value_offset = a.key_offset + own;
  a.key_value_width = a.value_offset + own;
  a.query_width = c.is_fused ? a.key_value_width : c.heads * c.head_dim;
  a.scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  a.key_value = random.normals(static_cast<size_t>(c.batch) * c.tokens * a.key_value_width);
  if (!c.is_fused) {
    a.query = random.normals(static_cast<size_t>(c.batch) * c.queries * a.query_width, c.loudness);
  }
  for (size_t i = 0; i < a.key_value.size(); ++i) {
    const auto column = static_cast<int64_t>(i) % a.key_value_width;
    const auto token = static_cast<int64_t>(i) / a.key_value_width % c.tokens;
    if (column < a.key_offset) a.key_value[i] *= c.loudness;
    // No query sees the padding: not even a NaN there may matter.
    if (c.sight == Sight::kTurns && token >= c.tokens - kPaddedTokens && column >= a.key_offset) {
      a.key_value[i] = std::numeric_limits<float>::quiet_NaN();
    }
  }
  const size_t n_prefix = static_cast<size_t>(c.layers) * own * c.prefix;
  a.prefix_key = random.normals(n_prefix);
  a.prefix_value = random.normals(n_prefix);
  for (auto* values : {&a.query, &a.key_value, &a.prefix_key, &a.prefix_value}) {
    round_to(dtype, *values);
  }
  a.visible = sights(c, random);
  return a;
}

// The sizes of a case into the parameters of either side.
template <typename Params>
void set_sizes(const Attention& a, Params& p) {
  p.n_batch = a.c.batch;
  p.n_queries = a.c.queries;
  p.n_tokens = a.c.tokens;
  p.n_prefix = a.c.prefix;
  p.n_heads = a.c.heads;
  p.n_kv_heads = a.c.kv_heads;
  p.head_dim = a.c.head_dim;
  p.n_layers = a.c.layers;
  p.layer = a.c.layer;
  p.query_width = a.query_width;
  p.query_offset = 0;
  p.key_value_width = a.key_value_width;
  p.key_offset = a.key_offset;
  p.value_offset = a.value_offset;
  p.scale = a.scale;
}

bool attend_on_cpu(Attention& a) {
  a.context.assign(static_cast<size_t>(a.c.batch) * a.c.queries * a.c.heads * a.c.head_dim, 0);
  cpu::PrefixAttentionParams p{};
  set_sizes(a, p);
  p.query = a.c.is_fused ? a.key_value.data() : a.query.data();
  p.key_value = a.key_value.data();
  p.prefix_key = a.prefix_key.data();
  p.prefix_value = a.prefix_value.data();
  p.visible = a.visible.data();
  p.context = a.context.data();
  if (!cpu::check_prefix_attention(p, cpu::Isa::kBest).ok()) return false;
  bool is_done = true;
  for (size_t i = 0; i < cpu::prefix_attention_tasks(p, cpu::Isa::kBest); ++i) {
    is_done = cpu::run_prefix_attention_task(p, cpu::Isa::kBest, i) && is_done;
  }
  return is_done;
}

// The tensors on the device, and the results there.
struct DeviceAttention {
  DeviceArray query, key_value, prefix_key, prefix_value, visible, context;
  DeviceArray workspace;
  gpu::PrefixAttentionParams params{};

  DeviceAttention(const Attention& a, DType dtype)
      : query(a.query, dtype),
        key_value(a.key_value, dtype),
        prefix_key(a.prefix_key, dtype),
        prefix_value(a.prefix_value, dtype),
        visible(a.visible),
        context(a.context.size() * gpu::dtype_bytes(dtype)),
        workspace(workspace_bytes(a)) {
    set_sizes(a, params);
    params.query = a.c.is_fused ? key_value.data() : query.data();
    params.key_value = key_value.data();
    params.prefix_key = prefix_key.data();
    params.prefix_value = prefix_value.data();
    params.visible = visible.as<int64_t>();
    params.context = context.data();
    params.dtype = dtype;
    params.workspace = workspace.data();
    params.workspace_bytes = workspace.size();
  }

  static size_t workspace_bytes(const Attention& a) {
    gpu::PrefixAttentionParams sizes{};
    set_sizes(a, sizes);
    return gpu::prefix_attention_workspace_bytes(sizes);
  }
};

// A version and a cut of its work.
struct Way {
  const char* name;
  AttentionVersion version;
  AttentionSchedule schedule;
  int tile_rows;
};
constexpr Way kWays[] = {
    {"naive", AttentionVersion::kNaive, AttentionSchedule::kAuto, 0},
    {"tiled", AttentionVersion::kTiled, AttentionSchedule::kAuto, 0},
    {"mma", AttentionVersion::kMma, AttentionSchedule::kAuto, 0},
    {"mma whole 64", AttentionVersion::kMma, AttentionSchedule::kWhole, 64},
    {"mma whole 128", AttentionVersion::kMma, AttentionSchedule::kWhole, 128},
    {"mma split 64", AttentionVersion::kMma, AttentionSchedule::kSplit, 64},
    {"mma split 128", AttentionVersion::kMma, AttentionSchedule::kSplit, 128},
};

bool way_takes(const Way& way, const gpu::PrefixAttentionParams& p) {
  if (way.version == AttentionVersion::kMma) {
    return gpu::best_attention_version(p) == AttentionVersion::kMma &&
           (way.tile_rows != 128 || p.head_dim != 128);
  }
  return way.version == AttentionVersion::kNaive || p.head_dim <= 128;
}

csrm::Status attend(const Way& way, gpu::PrefixAttentionParams p, DeviceAttention& device) {
  p.version = way.version;
  p.schedule = way.schedule;
  p.tile_rows = way.tile_rows;
  device.context.poison();
  device.workspace.poison();
  return gpu::prefix_attention(p, nullptr);
}

// One entry of the batch as a call of its own gives the bits `all` has for it.
void check_entry_alone(const std::string& name, const Way& way, int entry, const Attention& a,
                       const std::vector<unsigned char>& all, DeviceAttention& device,
                       Report& report) {
  gpu::PrefixAttentionParams p = device.params;
  const size_t element = gpu::dtype_bytes(p.dtype);
  const auto moved = [&](const void* base, int64_t elements) {
    return static_cast<const unsigned char*>(base) + entry * elements * element;
  };
  p.n_batch = 1;
  p.query = moved(p.query, p.n_queries * p.query_width);
  if (p.key_value != nullptr) p.key_value = moved(p.key_value, p.n_tokens * p.key_value_width);
  p.visible += entry * p.n_queries;
  report.succeeds(name, attend(way, p, device));
  const auto one = device.context.bytes();
  const size_t n = static_cast<size_t>(p.n_queries) * p.n_heads * p.head_dim * element;
  report.expect(name,
                all.size() == n * a.c.batch &&
                    std::equal(one.begin(), one.begin() + n, all.begin() + n * entry),
                "an entry alone gives the bits it has in the batch");
}

void check_attention(const AttentionCase& c, DType dtype, Report& report) {
  Attention a = attention_of(c, dtype);
  const std::string type = gpu::dtype_name(dtype);
  const std::string case_name = "PrefixAttention " + std::string(c.name) + " " + type;
  report.expect(case_name, attend_on_cpu(a), "the CPU version runs");
  DeviceAttention device(a, dtype);
  Random random(seed_of(c.name) + 1);
  std::vector<unsigned char> plain_bits, mma_bits;
  for (const Way& way : kWays) {
    if (!way_takes(way, device.params)) continue;
    const std::string name = case_name + " " + way.name;
    report.succeeds(name, attend(way, device.params, device));
    if (!synchronised()) return;
    const auto bits = device.context.bytes();
    report.error("PrefixAttention " + type + " " + way.name, c.name,
                 relative_error(device.context.floats(dtype), a.context), bound_of(dtype, c));
    report.expect(name, device.context.guards_intact() && device.workspace.guards_intact(),
                  "writes its results only");
    auto& agreed = way.version == AttentionVersion::kMma ? mma_bits : plain_bits;
    if (agreed.empty()) agreed = bits;
    report.expect(name, bits == agreed, "gives the bits of the other ways of its kind");
    report.succeeds(name, attend(way, device.params, device));
    report.expect(name, device.context.bytes() == bits, "two runs give equal bits");
    if (c.batch > 1 && c.queries > 0) {
      check_entry_alone(name, way, random.below(c.batch), a, bits, device, report);
    }
    if (!synchronised()) return;
  }
}

constexpr AttentionCase kGrouped{"special",      2, 20, 20, 300, 4, 2, 64, 1, 0, true,
                                 Sight::kRandom, 1};

void check_attention_nan_in_prefix(Report& report) {
  Attention a = attention_of(kGrouped, DType::kBFloat16);
  a.prefix_key[5] = std::numeric_limits<float>::quiet_NaN();  // of the first head of keys
  a.context.assign(static_cast<size_t>(kGrouped.batch) * kGrouped.queries * 4 * 64, 0);
  DeviceAttention device(a, DType::kBFloat16);
  for (const Way& way : kWays) {
    const std::string name = "PrefixAttention NaN in the prefix " + std::string(way.name);
    report.succeeds(name, attend(way, device.params, device));
    const auto out = device.context.floats(DType::kBFloat16);
    bool is_as_expected = true;
    for (size_t i = 0; i < out.size(); ++i) {
      is_as_expected = is_as_expected && std::isnan(out[i]) == (i / 64 % 4 < 2);
    }
    report.expect(name, is_as_expected, "reaches the heads that read it, and no other");
  }
}

void check_attention_arguments(Report& report) {
  Attention a = attention_of(kGrouped, DType::kFloat16);
  a.context.assign(static_cast<size_t>(kGrouped.batch) * kGrouped.queries * 4 * 64, 0);
  DeviceAttention device(a, DType::kFloat16);
  a.visible[0] = kGrouped.tokens;
  a.visible[1] = 0;
  const DeviceArray inside(a.visible);
  a.visible[0] = INT64_MAX;
  a.visible[1] = INT64_MIN;
  const DeviceArray outside(a.visible);
  gpu::PrefixAttentionParams p = device.params;
  for (const Way& way : kWays) {
    const std::string name = "PrefixAttention visible " + std::string(way.name);
    p.visible = inside.as<int64_t>();
    report.succeeds(name, attend(way, p, device));
    const auto bits = device.context.bytes();
    p.visible = outside.as<int64_t>();
    report.succeeds(name, attend(way, p, device));
    report.expect(name, device.context.bytes() == bits, "is brought into 0 to T");
  }
  p = device.params;
  p.version = AttentionVersion::kMma;
  p.schedule = AttentionSchedule::kSplit;
  p.workspace_bytes -= 1;
  report.expect("PrefixAttention workspace too small",
                gpu::prefix_attention(p, nullptr).code == csrm::Code::kBadArgument, "BadArgument");
  p = device.params;
  p.version = AttentionVersion::kMma;
  p.key_offset += 1;
  p.value_offset -= 1;
  report.expect("PrefixAttention odd offset",
                gpu::prefix_attention(p, nullptr).code == csrm::Code::kUnsupported, "Unsupported");
  p.value_offset += p.key_value_width;
  report.expect("PrefixAttention offset beyond the row",
                gpu::prefix_attention(p, nullptr).code == csrm::Code::kBadArgument, "BadArgument");
}

}  // namespace

std::vector<Check> attention_checks(bool is_small) {
  std::vector<Check> checks;
  checks.push_back({"PrefixAttention NaN in the prefix", check_attention_nan_in_prefix});
  checks.push_back({"PrefixAttention arguments", check_attention_arguments});
  for (const DType dtype : kAllTypes) {
    const auto add = [&](const AttentionCase& c) {
      const int64_t work = int64_t{c.batch} * c.queries * c.heads * (c.prefix + c.tokens);
      if (is_small && work > 100000) return;
      checks.push_back({"PrefixAttention " + std::string(c.name) + " " + gpu::dtype_name(dtype),
                        [&c, dtype](Report& report) { check_attention(c, dtype, report); }});
    };
    for (const AttentionCase& c : kAttentionCases) add(c);
    for (const AttentionCase& c : kMoreCases) add(c);
  }
  return checks;
}

}  // namespace csrm_test
