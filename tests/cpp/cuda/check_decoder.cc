// Checks of Rope, SwiGlu and KeysValues on a GPU: the first two against their CPU versions, on the
// cases of csrm.kernels and some of their own, the last against plain loops, to the bit. Inputs are
// random; those the kernel gets in 16 bits are rounded first for both sides.
#include <algorithm>
#include <cmath>
#include <memory>

#include "cases.h"
#include "harness.h"
#include "kernels/cuda/keys_values.h"
#include "kernels/cuda/rope.h"
#include "kernels/cuda/swiglu.h"
#include "kernels/rope.h"
#include "kernels/swiglu.h"

namespace csrm_test {
namespace {

namespace cpu = csrm::kernels;
namespace gpu = csrm::kernels::cuda;

// A result is rounded to nearest, by up to 2^-9 and 2^-12 of the binade above it.
double rounding_of(DType dtype) { return dtype == DType::kBFloat16 ? 3e-3 : 4e-4; }

std::string named(const char* kernel, const char* name, DType dtype) {
  return std::string(kernel) + " " + name + " " + gpu::dtype_name(dtype);
}

// Reports the error of `out`: absolute in fp32, else relative.
void report_error(const char* kernel, const char* name, DType dtype, float tolerance,
                  const std::vector<float>& out, const std::vector<float>& expected,
                  Report& report) {
  const bool is_wide = dtype == DType::kFloat32;
  report.error(std::string(kernel) + " " + gpu::dtype_name(dtype), name,
               is_wide ? absolute_error(out, expected) : relative_error(out, expected),
               is_wide ? tolerance : rounding_of(dtype));
}

constexpr RopeCase kMoreRopes[] = {
    {"llama3_8b", 5, 40, 128, 1024, 8000, false, 1e-5f, 3e-6f},
    {"all_heads_no_rest", 3, 7, 64, 0, 300, true, 1e-6f, 3e-6f},
    {"rest_of_odd_width", 3, 2, 16, 5, 300, false, 1e-6f, 3e-6f},
};

// The tensors of a case on the host, and the CPU's answer.
struct Turned {
  std::vector<float> x, frequencies, weight, y;
  std::vector<int64_t> positions;

  Turned(const RopeCase& c, DType dtype) {
    Random random(seed_of(c.name));
    const size_t width = static_cast<size_t>(c.heads) * c.head_dim;
    x = random.normals(c.rows * (width + c.rest));
    round_to(dtype, x);
    weight = random.normals(width, 0.1f, 1);
    for (int i = 0; i < c.head_dim; i += 2) {
      frequencies.push_back(std::pow(10000.0f, -static_cast<float>(i) / c.head_dim));
    }
    for (int row = 0; row < c.rows; ++row) positions.push_back(random.below(c.most + 1));
    y.resize(x.size());
    const cpu::RopeParams p{x.data(),
                            positions.data(),
                            frequencies.data(),
                            c.has_norm ? weight.data() : nullptr,
                            y.data(),
                            c.rows,
                            c.heads * c.head_dim + c.rest,
                            c.heads,
                            c.head_dim,
                            c.epsilon};
    for (size_t i = 0; i < cpu::rope_tasks(p); ++i) cpu::run_rope_task(p, cpu::Isa::kBest, i);
  }
};

void check_rope_at(const RopeCase& c, DType dtype, const Turned& h, size_t shift,
                   std::vector<unsigned char>& bits, Report& report) {
  const std::string name = named("Rope", c.name, dtype);
  const DeviceArray frequencies(h.frequencies, DType::kFloat32);
  const DeviceArray weight(h.weight, DType::kFloat32), positions(h.positions);
  const DeviceArray xs(h.x, dtype, shift), untouched(h.x, dtype, shift);
  DeviceArray y(h.x.size() * gpu::dtype_bytes(dtype), shift);
  gpu::RopeParams p{xs.data(),
                    positions.as<int64_t>(),
                    frequencies.as<float>(),
                    c.has_norm ? weight.as<float>() : nullptr,
                    y.data(),
                    c.rows,
                    c.heads * c.head_dim + c.rest,
                    c.heads,
                    c.head_dim,
                    c.epsilon,
                    dtype};
  report.succeeds(name, gpu::rope(p, nullptr));
  if (!synchronised()) return;
  const std::vector<float> out = y.floats(dtype);
  report_error("Rope", c.name, dtype, c.tolerance, out, h.y, report);
  const size_t n_columns = static_cast<size_t>(p.n_columns);
  bool is_copied = true;
  for (size_t i = 0; i < out.size(); ++i) {
    if (i % n_columns >= n_columns - c.rest) is_copied = is_copied && out[i] == h.x[i];
  }
  report.expect(name, is_copied, "columns behind the heads are as they were");
  report.expect(name, y.guards_intact(), "writes its rows only");
  if (shift == 0) bits = y.bytes();
  report.expect(name, y.bytes() == bits, "another address gives equal bits");
  p.y = xs.data();  // in place
  report.succeeds(name, gpu::rope(p, nullptr));
  report.expect(name, xs.bytes() == bits, "in place gives equal bits");
  if (c.rows < 2) return;
  const size_t last = static_cast<size_t>(c.rows - 1), row_bytes = y.size() / c.rows;
  p.n_rows = 1;
  p.x = untouched.as<unsigned char>() + last * row_bytes;
  p.positions += last;
  p.y = y.data();
  y.poison();
  report.succeeds(name, gpu::rope(p, nullptr));
  const auto one = y.bytes();
  report.expect(name, std::equal(one.begin(), one.begin() + row_bytes, bits.end() - row_bytes),
                "a row alone gives the bits it has among others");
}

void check_rope(const RopeCase& c, DType dtype, Report& report) {
  const Turned host(c, dtype);
  std::vector<unsigned char> bits;
  for (const size_t shift : {size_t{0}, gpu::dtype_bytes(dtype)}) {  // packs whole, then by element
    check_rope_at(c, dtype, host, shift, bits, report);
  }
}

// A head whose turn leaves fp16: at 45 degrees 60,000 and -60,000 become 84,853 and 0.
void check_rope_too_large(Report& report) {
  const DeviceArray x({60000, 1, -60000, 1, 60000, 7}, DType::kFloat16), y(x.size());
  const DeviceArray positions(std::vector<int64_t>{1});
  const DeviceArray frequencies({0.78539816f, 0.0f}, DType::kFloat32);
  gpu::RopeParams p{
      x.data(), positions.as<int64_t>(), frequencies.as<float>(), nullptr, y.data(), 1, 6, 1, 4,
      0,        DType::kFloat16};
  report.succeeds("Rope too large", gpu::rope(p, nullptr));
  const std::vector<float> out = y.floats(DType::kFloat16);
  report.expect("Rope too large", std::isnan(out[0]) && out[1] == 1 && std::abs(out[2]) < 64,
                "is NaN and not infinite");
  report.expect("Rope too large", out[4] == 60000 && out[5] == 7, "the rest is as it was");
  const auto is_bad = [](const gpu::RopeParams& bad) {
    return gpu::rope(bad, nullptr).code == csrm::Code::kBadArgument;
  };
  gpu::RopeParams odd = p, many = p, nothing = p;
  odd.head_dim = 3;
  many.n_heads = 2;
  nothing.frequencies = nullptr;
  report.expect("Rope", is_bad(odd) && is_bad(many) && is_bad(nothing), "BadArgument");
}

constexpr SwiGluCase kMoreSwiGlus[] = {
    {"llama3_8b", 5, 14336, 1, 5e-6f},
};

void check_swiglu(const SwiGluCase& c, DType dtype, Report& report) {
  const std::string name = named("SwiGlu", c.name, dtype);
  Random random(seed_of(c.name));
  std::vector<float> x = random.normals(2 * static_cast<size_t>(c.rows) * c.columns, c.size);
  round_to(dtype, x);
  std::vector<float> expected(x.size() / 2);
  const cpu::SwiGluParams host{x.data(), expected.data(), c.rows, c.columns};
  for (size_t i = 0; i < cpu::swiglu_tasks(host); ++i) {
    cpu::run_swiglu_task(host, cpu::Isa::kBest, i);
  }
  std::vector<unsigned char> bits;
  for (const size_t shift : {size_t{0}, gpu::dtype_bytes(dtype)}) {
    const DeviceArray xs(x, dtype, shift);
    DeviceArray y(expected.size() * gpu::dtype_bytes(dtype), shift);
    gpu::SwiGluParams p{xs.data(), y.data(), c.rows, c.columns, dtype};
    report.succeeds(name, gpu::swiglu(p, nullptr));
    if (!synchronised()) return;
    report_error("SwiGlu", c.name, dtype, c.tolerance, y.floats(dtype), expected, report);
    report.expect(name, y.guards_intact(), "writes its rows only");
    if (shift == 0) bits = y.bytes();
    report.expect(name, y.bytes() == bits, "another address gives equal bits");
  }
}

void check_swiglu_extremes(Report& report) {
  const std::vector<float> gates = {-INFINITY, INFINITY, NAN, 100, -100, 0, -0.0f, 60000};
  std::vector<float> x = gates;
  x.insert(x.end(), {1, 1, 1, 2, 2, 3, 3, 60000});
  const DeviceArray xs(x, DType::kFloat16), y(xs.size() / 2);
  const gpu::SwiGluParams p{xs.data(), y.data(), 1, 8, DType::kFloat16};
  report.succeeds("SwiGlu extremes", gpu::swiglu(p, nullptr));
  const std::vector<float> out = y.floats(DType::kFloat16);
  report.expect("SwiGlu extremes",
                std::isnan(out[0]) && std::isinf(out[1]) && std::isnan(out[2]) && out[3] == 200 &&
                    out[4] == 0 && out[5] == 0 && out[6] == 0 && std::isinf(out[7]),
                "are what the definition gives");
  gpu::SwiGluParams bad = p;
  bad.n_columns = 0;
  report.expect("SwiGlu", gpu::swiglu(bad, nullptr).code == csrm::Code::kBadArgument,
                "BadArgument");
}

constexpr KeysValuesCase kMoreKeysValues[] = {
    {"off_its_alignment", 2, 2, 3, 4, 2, 8, 1},
};

void check_keys_values(const KeysValuesCase& c, DType dtype, Report& report) {
  const std::string name = named("KeysValues", c.name, dtype);
  Random random(seed_of(c.name));
  const int own = c.kv_heads * c.head_dim, width = c.heads * c.head_dim + 2 * own;
  const size_t n_rows = static_cast<size_t>(c.batch) * c.tokens;
  const size_t shift = c.shift * gpu::dtype_bytes(dtype);
  std::vector<std::unique_ptr<DeviceArray>> layers;
  std::vector<const void*> addresses;
  std::vector<float> expected[2];
  for (std::vector<float>& part : expected) part.resize(n_rows * c.layers * own);
  for (int layer = 0; layer < c.layers; ++layer) {
    std::vector<float> states = random.normals(n_rows * width);
    round_to(dtype, states);
    for (size_t i = 0; i < n_rows * 2 * own; ++i) {
      const size_t row = i / (2 * own), column = i % (2 * own), part = column / own;
      const size_t head = column % own / c.head_dim, d = column % c.head_dim;
      const size_t entry = row / c.tokens, token = row % c.tokens;
      const size_t at = ((entry * c.layers + layer) * c.kv_heads + head) * c.tokens + token;
      expected[part][at * c.head_dim + d] = states[row * width + width - 2 * own + column];
    }
    layers.push_back(std::make_unique<DeviceArray>(states, dtype, shift));
    addresses.push_back(layers.back()->data());
  }
  DeviceArray key(expected[0].size() * sizeof(float)), value(expected[1].size() * sizeof(float));
  gpu::KeysValuesParams p{
      addresses.data(), key.as<float>(), value.as<float>(), c.layers,    c.batch, c.tokens, width,
      c.kv_heads,       c.head_dim,      width - 2 * own,   width - own, dtype};
  report.succeeds(name, gpu::keys_values(p, nullptr));
  if (!synchronised()) return;
  report.expect(
      name,
      key.floats(DType::kFloat32) == expected[0] && value.floats(DType::kFloat32) == expected[1],
      "moves every number");
  report.expect(name, key.guards_intact() && value.guards_intact(), "writes its outputs only");
  p.value_offset += 1;
  report.expect(name, gpu::keys_values(p, nullptr).code == csrm::Code::kBadArgument,
                "columns beyond the states are BadArgument");
  p.value_offset -= 1;
  p.n_layers = gpu::kMaxKeyValueLayers + 1;
  report.expect(name, gpu::keys_values(p, nullptr).code == csrm::Code::kBadArgument,
                "too many layers are BadArgument");
}

}  // namespace

std::vector<Check> decoder_checks(bool is_small) {
  std::vector<Check> checks;
  checks.push_back({"Rope too large", check_rope_too_large});
  checks.push_back({"SwiGlu extremes", check_swiglu_extremes});
  for (const DType dtype : kAllTypes) {
    const auto add_rope = [&](const RopeCase& c) {
      if (is_small && c.rows * (c.heads * c.head_dim + c.rest) > 50000) return;
      checks.push_back({named("Rope", c.name, dtype),
                        [&c, dtype](Report& report) { check_rope(c, dtype, report); }});
    };
    const auto add_swiglu = [&](const SwiGluCase& c) {
      if (is_small && c.rows * c.columns > 50000) return;
      checks.push_back({named("SwiGlu", c.name, dtype),
                        [&c, dtype](Report& report) { check_swiglu(c, dtype, report); }});
    };
    const auto add_keys_values = [&](const KeysValuesCase& c) {
      checks.push_back({named("KeysValues", c.name, dtype),
                        [&c, dtype](Report& report) { check_keys_values(c, dtype, report); }});
    };
    for (const RopeCase& c : kRopeCases) add_rope(c);
    for (const RopeCase& c : kMoreRopes) add_rope(c);
    for (const SwiGluCase& c : kSwiGluCases) add_swiglu(c);
    for (const SwiGluCase& c : kMoreSwiGlus) add_swiglu(c);
    for (const KeysValuesCase& c : kKeysValuesCases) add_keys_values(c);
    for (const KeysValuesCase& c : kMoreKeysValues) add_keys_values(c);
  }
  return checks;
}

}  // namespace csrm_test
