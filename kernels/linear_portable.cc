// Linear in plain C++: vectors of 4 that the compiler may put into any machine's registers. The
// text is linear_tile.h.
#include <cmath>
#include <cstdint>

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
  static Register load(const int8_t* p) {
    return each([&](int i) { return static_cast<float>(p[i]); });
  }
  static void store(float* p, const Register& v) {
    for (int i = 0; i < kWidth; ++i) p[i] = v.lane[i];
  }
  static void prefetch(const char*) {}
  static Register add(const Register& a, const Register& b) {
    return each([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  static Register mul(const Register& a, const Register& b) {
    return each([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  static Register div(const Register& a, const Register& b) {
    return each([&](int i) { return a.lane[i] / b.lane[i]; });
  }
  // Two roundings: std::fma is a function call on machines without the instruction.
  static Register fma(const Register& a, const Register& b, const Register& c) {
    return each([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
  }
  // `size` >= 0 with the sign of each lane of `v`.
  static Register with_sign_of(const Register& size, const Register& v) {
    return each([&](int i) { return std::copysign(size.lane[i], v.lane[i]); });
  }
  // Lane by lane `yes` where |v| < bound, else (and for NaN) `no`.
  static Register if_below(const Register& v, float bound, const Register& yes,
                           const Register& no) {
    return each([&](int i) { return std::abs(v.lane[i]) < bound ? yes.lane[i] : no.lane[i]; });
  }
};

}  // namespace
}  // namespace csrm::kernels

#include "linear_tile.h"

namespace csrm::kernels {

const LinearVersion kLinearPortable{kPanelWidth, run_block};

}  // namespace csrm::kernels
