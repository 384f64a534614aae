// Vectors of 4 floats in plain C++, which the compiler may put into any machine's registers, for
// the kernels that are written once over `Vector` (prefix_attention_tile.h, add_norm_tile.h).
// Included once, by a .cc file of that version.
#ifndef CSRM_KERNELS_VECTOR_PORTABLE_H_
#define CSRM_KERNELS_VECTOR_PORTABLE_H_

#include <cstdint>
#include <cstring>

#define CSRM_TARGET

namespace csrm::kernels {
namespace {

struct Vector {
  static constexpr int kWidth = 4;
  struct Register {
    float lane[kWidth];
  };

  template <typename Lane>
  static Register each(Lane lane) {
    return {{lane(0), lane(1), lane(2), lane(3)}};
  }
  static Register set(float v) { return {{v, v, v, v}}; }
  static Register load(const float* p) { return {{p[0], p[1], p[2], p[3]}}; }
  static void store(float* p, const Register& v) {
    for (int i = 0; i < kWidth; ++i) p[i] = v.lane[i];
  }
  static Register add(const Register& a, const Register& b) {
    return each([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  static Register sub(const Register& a, const Register& b) {
    return each([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  static Register mul(const Register& a, const Register& b) {
    return each([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  // Two roundings: std::fma is a function call on machines without the instruction.
  static Register fma(const Register& a, const Register& b, const Register& c) {
    return each([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
  }
  // The larger of each lane; `b` where one is NaN.
  static Register max(const Register& a, const Register& b) {
    return each([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  // Lane by lane `yes` where a < b, else (and for NaN) `no`.
  static Register if_less(const Register& a, const Register& b, const Register& yes,
                          const Register& no) {
    return each([&](int i) { return a.lane[i] < b.lane[i] ? yes.lane[i] : no.lane[i]; });
  }
  // Zero where a < b, else (and for NaN) `v`.
  static Register zero_if_less(const Register& a, const Register& b, const Register& v) {
    return if_less(a, b, set(0.0f), v);
  }
  // The low nine bits of each lane as sign and exponent of a float.
  static Register as_exponent(const Register& v) {
    return each([&](int i) {
      uint32_t bits = 0;
      std::memcpy(&bits, &v.lane[i], sizeof(bits));
      bits <<= 23;
      float result = 0;
      std::memcpy(&result, &bits, sizeof(bits));
      return result;
    });
  }
  // to[c][r] = from[r][c] of a square of 4.
  static void transpose(const float* const* from, float* const* to) {
    for (int r = 0; r < 4; ++r) {
      for (int c = 0; c < 4; ++c) to[c][r] = from[r][c];
    }
  }
};

}  // namespace
}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_VECTOR_PORTABLE_H_
