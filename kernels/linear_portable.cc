// Linear without any instruction set of its own: vectors of 4 in the form gcc and clang know on
// every machine, tiles of 6 x 8. The text is linear_tile.h.
#include <cmath>
#include <cstdint>
#include <cstring>

#define CSRM_TARGET

namespace csrm::kernels {
namespace {

struct Vector {
  static constexpr int kWidth = 4;
  typedef float Register __attribute__((vector_size(kWidth * sizeof(float))));

  static Register set(float v) { return Register{v, v, v, v}; }
  static Register load(const float* p) {
    Register v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  static Register load(const int8_t* p) {
    return Register{static_cast<float>(p[0]), static_cast<float>(p[1]), static_cast<float>(p[2]),
                    static_cast<float>(p[3])};
  }
  static void store(float* p, Register v) { std::memcpy(p, &v, sizeof(v)); }
  static void prefetch(const char*) {}
  static Register add(Register a, Register b) { return a + b; }
  static Register mul(Register a, Register b) { return a * b; }
  static Register div(Register a, Register b) { return a / b; }
  // Two roundings: std::fma is a function call on machines without the instruction.
  static Register fma(Register a, Register b, Register c) { return a * b + c; }
  // `size` >= 0 with the sign of each lane of `v`.
  static Register with_sign_of(Register size, Register v) {
    for (int i = 0; i < kWidth; ++i) size[i] = std::copysign(size[i], v[i]);
    return size;
  }
  // Lane by lane `yes` where |v| < bound, else (and for NaN) `no`.
  static Register if_below(Register v, float bound, Register yes, Register no) {
    for (int i = 0; i < kWidth; ++i) {
      if (std::abs(v[i]) < bound) no[i] = yes[i];
    }
    return no;
  }
};

}  // namespace
}  // namespace csrm::kernels

#include "linear_tile.h"

namespace csrm::kernels {

const LinearVersion kLinearPortable{kPanelWidth, run_block};

}  // namespace csrm::kernels
