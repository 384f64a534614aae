// LinearI8 for any machine: see vector_portable.h. The text is linear_i8_tile.h.

// clang-format off: the vectors come first
#include "vector_portable.h"
#include "linear_i8_tile.h"
// clang-format on

namespace csrm::kernels {
namespace {

// Four sums, one value of k at a time.
struct Portable {
  typedef int32_t Register __attribute__((vector_size(16)));
  using Value = int16_t;
  static constexpr int64_t kGroup = 1, kValueSize = sizeof(Value);
  static constexpr int kVectors = 1;
  static constexpr Value kOffset = 0;

  static Register load(const int32_t* p) {
    Register v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  static Register load(const int8_t* p) { return Register{p[0], p[1], p[2], p[3]}; }
  static Register set(const Value* x) { return Register{*x, *x, *x, *x}; }
  static Register dot(Register sum, Register x, Register weight) { return sum + x * weight; }
  static Vector::Register to_floats(Register v) {
    return Vector::Register{static_cast<float>(v[0]), static_cast<float>(v[1]),
                            static_cast<float>(v[2]), static_cast<float>(v[3])};
  }
  // Each lane rounded to the nearest integer, ties to even; |v| is at most 2047.
  static void store(Value* to, const Vector::Register (&v)[kVectors]) {
    constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: leaves the integer in the low bits
    const Vector::Register rounded = v[0] + Vector::set(kRounder);
    Vector::Bits bits;
    std::memcpy(&bits, &rounded, sizeof(bits));
    // The low 16 bits of kRounder are zeros.
    for (int i = 0; i < Vector::kWidth; ++i) to[i] = static_cast<Value>(bits[i] & 0xFFFFu);
  }
};

}  // namespace

const LinearI8Version kLinearI8Portable = version<Portable>();

}  // namespace csrm::kernels
