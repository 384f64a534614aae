// Vectors of 4 floats for any machine, in plain operators, for the kernels that are written once
// over `Vector` (linear_tile.h, prefix_attention_tile.h, add_norm_tile.h). Included once, by a .cc
// file of that version.
#ifndef CSRM_KERNELS_VECTOR_PORTABLE_H_
#define CSRM_KERNELS_VECTOR_PORTABLE_H_

#include <cmath>
#include <cstdint>
#include <cstring>

#include "half.h"

#define CSRM_TARGET

namespace csrm::kernels {
namespace {

struct Vector {
  // A type of GCC and Clang: arrays of floats in a structure stay in memory, at a tenth the speed.
  typedef float Register __attribute__((vector_size(16)));
  typedef uint32_t Bits __attribute__((vector_size(16)));
  typedef int32_t Ints __attribute__((vector_size(16)));
  static constexpr int kWidth = 4;

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
  // Half precision (half.h).
  static Register load_half(const uint16_t* p) {
    return Register{from_half(p[0]), from_half(p[1]), from_half(p[2]), from_half(p[3])};
  }
  static void store_half(uint16_t* p, Register v) {
    for (int i = 0; i < kWidth; ++i) p[i] = to_half(v[i]);
  }
  static Register through_half(Register v) {
    for (int i = 0; i < kWidth; ++i) v[i] = from_half(to_half(v[i]));
    return v;
  }
  static void prefetch(const char*) {}
  static void store(float* p, Register v) { std::memcpy(p, &v, sizeof(v)); }
  static Register add(Register a, Register b) { return a + b; }
  static Register sub(Register a, Register b) { return a - b; }
  static Register mul(Register a, Register b) { return a * b; }
  static Register div(Register a, Register b) { return a / b; }
  // Each half added to the other until one number is left.
  static float tree_sum(Register v) { return (v[0] + v[2]) + (v[1] + v[3]); }
  // Two roundings: one would be a function call on machines without the instruction.
  static Register fma(Register a, Register b, Register c) { return a * b + c; }
  // The larger of each lane; `b` where one is NaN.
  static Register max(Register a, Register b) { return a > b ? a : b; }
  // The smaller of each lane; `b` where one is NaN.
  static Register min(Register a, Register b) { return a < b ? a : b; }
  // The larger |lane|, without a sign. Of those that are not finite one that is not.
  static Register max_size(Register a, Register b) {
    Ints x, y;
    std::memcpy(&x, &a, sizeof(x));
    std::memcpy(&y, &b, sizeof(y));
    x &= INT32_MAX;
    y &= INT32_MAX;
    x = x > y ? x : y;
    std::memcpy(&a, &x, sizeof(a));
    return a;
  }
  // a * b + c rounded once, slowly on machines without the instruction.
  static Register fma_once(Register a, Register b, Register c) {
    for (int i = 0; i < kWidth; ++i) c[i] = rounded_once(a[i], b[i], c[i]);
    return c;
  }
  // Lane by lane `yes` where a < b, else (and for NaN) `no`.
  static Register if_less(Register a, Register b, Register yes, Register no) {
    return a < b ? yes : no;
  }
  // Zero where a < b, else (and for NaN) `v`.
  static Register zero_if_less(Register a, Register b, Register v) {
    return if_less(a, b, set(0.0f), v);
  }
  // The low nine bits of each lane as sign and exponent of a float.
  static Register as_exponent(Register v) {
    Bits bits;
    std::memcpy(&bits, &v, sizeof(bits));
    bits <<= 23;
    Register result;
    std::memcpy(&result, &bits, sizeof(result));
    return result;
  }
  // to[c][r] = from[r][c] of a square of 4.
  static void transpose(const float* const* from, float* const* to) {
    for (int r = 0; r < 4; ++r) {
      for (int c = 0; c < 4; ++c) to[c][r] = from[r][c];
    }
  }
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

 private:
  static float rounded_once(float a, float b, float c) {
#if defined(__FP_FAST_FMAF)
    return __builtin_fmaf(a, b, c);
#else
    const double product = static_cast<double>(a) * b, addend = c;  // exact
    double sum = product + addend;
    const double back = sum - product;
    const double error = (product - (sum - back)) + (addend - back);  // exact (Knuth)
    // A rounded sum is made odd, so that rounding it to a float sees on which side the true one is.
    if (error > 0.0 || error < 0.0) {
      uint64_t bits;
      std::memcpy(&bits, &sum, sizeof(bits));
      if ((bits & 1) == 0) bits += (error > 0.0) == (sum > 0.0) ? 1 : uint64_t{0} - 1;
      std::memcpy(&sum, &bits, sizeof(sum));
    }
    return static_cast<float>(sum);
#endif
  }
};

}  // namespace
}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_VECTOR_PORTABLE_H_
