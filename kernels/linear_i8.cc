// Argument checks and packing of LinearI8. Not: arithmetic (linear_i8_cpu.cc, linear_i8_tile.h).
// Arguments come from ort_linear_i8.cc or a C++ caller. Messages name numbers, never data.
#include "linear_i8.h"

#include <algorithm>
#include <optional>
#include <string>

#include "amx.h"
#include "linear_i8_block.h"

namespace csrm::kernels {
namespace {

Status bad_argument(const std::string& message) {
  return {Code::kBadArgument, "LinearI8: " + message};
}

Status check(const LinearI8Params& p) {
  if (p.n_in < 1 || p.n_out < 1 || p.n_in > kMaxLinearI8Depth) {
    return bad_argument(
        "the weight is " + std::to_string(p.n_in) + " x " + std::to_string(p.n_out) +
        "; both sizes must be >= 1 and the first <= " + std::to_string(kMaxLinearI8Depth));
  }
  if (p.levels != kByteLevels && p.levels != kWordLevels) {
    return bad_argument("levels is " + std::to_string(p.levels) + "; it must be " +
                        std::to_string(kByteLevels) + " or " + std::to_string(kWordLevels));
  }
  if (p.values == nullptr || p.scale == nullptr || p.bias == nullptr) {
    return bad_argument("a pointer is null; give values, scale and bias");
  }
  return Status::success();
}

const LinearI8Version& version_of([[maybe_unused]] Isa isa,
                                  [[maybe_unused]] int64_t levels) noexcept {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
  const Isa wanted = resolved_isa(isa);
#if CSRM_HAS_AMX
  if (wanted == Isa::kAmx) return levels == kByteLevels ? kLinearI8AmxBytes : kLinearI8AmxWords;
#endif
  if (wanted == Isa::kAvx512 && linear_i8_supported(Isa::kAvx512)) {
    return levels == kByteLevels ? kLinearI8Avx512Bytes : kLinearI8Avx512Words;
  }
  if (wanted != Isa::kPortable) return kLinearI8Avx2;  // a CPU with AVX-512 has it
#endif
  return kLinearI8Portable;
}

}  // namespace

LinearI8::LinearI8(const LinearI8Params& params, Isa isa) noexcept
    : version_(&version_of(isa, params.levels)),
      n_in_(params.n_in),
      n_out_(params.n_out),
      levels_(params.levels),
      has_gelu_(params.has_gelu) {
  const LinearI8Version& version = *version_;
  n_panels_ = (n_out_ + version.panel_width - 1) / version.panel_width;
  const int64_t depth = (n_in_ + version.depth - 1) / version.depth * version.depth;
  n_groups_ = depth / version.group;
  const size_t n_lines =
      line_bytes<char>(static_cast<size_t>(depth * version.value_size)) / kLineBytes;
  row_size_ = static_cast<int64_t>((n_lines | 1) * kLineBytes);
}

int64_t LinearI8::n_columns() const noexcept { return n_panels_ * version_->panel_width; }
int64_t LinearI8::n_values() const noexcept { return n_columns() * n_groups_ * version_->group; }

size_t LinearI8::packed_size(const LinearI8Params& params, Isa isa) noexcept {
  if (!check(params).ok() || !linear_i8_supported(isa)) return 0;
  const LinearI8 linear(params, isa);
  const auto n_columns = static_cast<size_t>(linear.n_columns());
  return 2 * line_bytes<float>(n_columns) + line_bytes<int32_t>(n_columns) +
         line_bytes<int8_t>(static_cast<size_t>(linear.n_values()));
}

Result<LinearI8> LinearI8::make(const LinearI8Params& params, Isa isa, WeightMemory* memory) {
  if (Status status = check(params); !status.ok()) return status;
  if (!linear_i8_supported(isa)) {
    return Status{Code::kUnsupported, "LinearI8: this CPU or build lacks version " +
                                          std::to_string(static_cast<int>(isa)) +
                                          "; use the default (Isa::kBest)"};
  }
  std::optional<WeightMemory> own;
  if (memory == nullptr) memory = &own.emplace(packed_size(params, isa));
  LinearI8 linear(params, isa);
  linear.scale_ = memory->take<float>(linear.n_columns());
  linear.bias_ = memory->take<float>(linear.n_columns());
  linear.start_ = memory->take<int32_t>(linear.n_columns());
  linear.values_ = memory->take<int8_t>(linear.n_values());
  std::copy_n(params.scale, params.n_out, linear.scale_.get());
  std::copy_n(params.bias, params.n_out, linear.bias_.get());
  linear.pack(params.values);
  return linear;
}

void LinearI8::pack(const int8_t* values) {
  const int64_t width = version_->panel_width, group = version_->group;
  for (int64_t panel = 0; panel < n_panels_; ++panel) {
    const int64_t first = panel * width;
    const int64_t n_columns = std::min(width, n_out_ - first);
    for (int64_t k = 0; k < n_in_; ++k) {
      const int8_t* row = values + k * n_out_ + first;
      int8_t* out = values_.get() + (panel * n_groups_ + k / group) * width * group + k % group;
      int32_t* start = start_.get() + first;
      for (int64_t c = 0; c < n_columns; ++c) {
        out[c * group] = row[c];
        start[c] -= version_->offset * row[c];
      }
    }
  }
}

}  // namespace csrm::kernels
