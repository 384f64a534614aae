// Argument checks and packing of Linear. Not: arithmetic (linear_cpu.cc, linear_tile.h).
// Arguments come from ort_linear.cc or a C++ caller. Messages name numbers, never data.
#include "linear.h"

#include <algorithm>
#include <new>
#include <string>

#include "linear_block.h"

namespace csrm::kernels {
namespace {

Status bad_argument(const std::string& message) {
  return {Code::kBadArgument, "Linear: " + message};
}

Status check(const LinearParams& p) {
  if (p.n_in < 1 || p.n_out < 1) {
    return bad_argument("the weight is " + std::to_string(p.n_in) + " x " +
                        std::to_string(p.n_out) + "; both sizes must be >= 1");
  }
  if ((p.dense == nullptr) == (p.values == nullptr)) {
    return bad_argument("give the weight either as int8 values or as floats");
  }
  if ((p.values != nullptr) != (p.scale != nullptr)) {
    return bad_argument("int8 values need a scale and floats have none");
  }
  if (p.bias == nullptr) return bad_argument("the bias is null");
  return Status::success();
}

const LinearVersion& version_of(Isa isa) noexcept {
  switch (resolved_isa(isa)) {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    case Isa::kAvx512:
      return kLinearAvx512;
    case Isa::kAvx2:
      return kLinearAvx2;
#endif
    default:
      return kLinearPortable;
  }
}

}  // namespace

Result<Linear> Linear::make(const LinearParams& params, Isa isa) {
  if (Status status = check(params); !status.ok()) return status;
  if (Status status = check_isa("Linear", isa); !status.ok()) return status;
  Linear linear;
  linear.version_ = &version_of(isa);
  linear.n_in_ = params.n_in;
  linear.n_out_ = params.n_out;
  linear.has_gelu_ = params.has_gelu;
  linear.pack(params);
  return linear;
}

Linear::Floats Linear::aligned(int64_t n_floats) {
  constexpr size_t kLineBytes = 64;
  const size_t n_bytes = static_cast<size_t>(n_floats) * sizeof(float);
  const size_t n_lines = (n_bytes + kLineBytes - 1) / kLineBytes;
  auto* floats = static_cast<float*>(std::aligned_alloc(kLineBytes, n_lines * kLineBytes));
  if (floats == nullptr) throw std::bad_alloc();
  return Floats(floats);
}

void Linear::pack(const LinearParams& params) {
  const int64_t width = version_->panel_width;
  n_panels_ = (n_out_ + width - 1) / width;
  bias_ = aligned(n_panels_ * width);
  std::fill_n(std::copy_n(params.bias, n_out_, bias_.get()), n_panels_ * width - n_out_, 0.0f);
  panels_ = aligned(n_panels_ * n_in_ * width);
  float* packed = panels_.get();
  for (int64_t first = 0; first < n_out_; first += width) {
    const int64_t columns = std::min(width, n_out_ - first);
    for (int64_t k = 0; k < n_in_; ++k, packed += width) {
      const int64_t at = k * n_out_ + first;
      for (int64_t c = 0; c < columns; ++c) {
        packed[c] = params.dense != nullptr
                        ? params.dense[at + c]
                        : static_cast<float>(params.values[at + c]) * params.scale[first + c];
      }
      std::fill_n(packed + columns, width - columns, 0.0f);
    }
  }
}

}  // namespace csrm::kernels
