// Argument checks and packing of Linear. Not: arithmetic (linear_cpu.cc, linear_tile.h).
// Arguments come from ort_linear.cc or a C++ caller. Messages name numbers, never data.
#include "linear.h"

#include <algorithm>
#include <new>
#include <string>
#include <vector>

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
  return Status::success();
}

const LinearVersion& version_of(Isa isa) noexcept {
  switch (vector_isa(isa)) {
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

template <typename T>
Aligned<T> room(int64_t n) {
  Aligned<T> memory = aligned<T>(static_cast<size_t>(n));
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
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
  linear.n_panels_ =
      (params.n_out + linear.version_->panel_width - 1) / linear.version_->panel_width;
  if (params.dense != nullptr) {
    const std::vector<float> ones(static_cast<size_t>(params.n_out), 1.0f);
    linear.floats_ = linear.packed(params.dense);
    linear.scale_ = linear.padded(ones.data());
  } else {
    linear.int8s_ = linear.packed(params.values);
    linear.scale_ = linear.padded(params.scale);
  }
  const std::vector<float> none(params.bias == nullptr ? static_cast<size_t>(params.n_out) : 0);
  linear.bias_ = linear.padded(params.bias == nullptr ? none.data() : params.bias);
  return linear;
}

Aligned<float> Linear::padded(const float* values) const {
  const int64_t n = n_panels_ * version_->panel_width;
  Aligned<float> result = room<float>(n);
  std::fill_n(std::copy_n(values, n_out_, result.get()), n - n_out_, 0.0f);
  return result;
}

template <typename T>
Aligned<T> Linear::packed(const T* weight) const {
  const int64_t width = version_->panel_width;
  Aligned<T> result = room<T>(n_panels_ * n_in_ * width);
  T* out = result.get();
  for (int64_t first = 0; first < n_out_; first += width) {
    const int64_t columns = std::min(width, n_out_ - first);
    for (int64_t k = 0; k < n_in_; ++k) {
      T* end = std::copy_n(weight + k * n_out_ + first, columns, out);
      out = std::fill_n(end, width - columns, T{0});
    }
  }
  return result;
}

}  // namespace csrm::kernels
