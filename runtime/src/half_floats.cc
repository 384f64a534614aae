// Rounds in integers, and below 2^-14 by an addition whose sum ends where such a half does; see
// half_floats.h.
#include "half_floats.h"

#include <cstring>

namespace csrm {
namespace {

constexpr uint32_t kSign = 0x80000000u, kInfinity = 0x7f800000u, kOverflow = 0x477ff000u;
constexpr uint32_t kSmallestNormal = 0x38800000u;  // 2^-14
constexpr uint32_t kBiasChange = (127 - 15) << 23;
constexpr int kDropped = 13;  // bits of the mantissa that a half has not

float float_of(uint32_t bits) {
  float x = 0;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

uint32_t bits_of(float x) {
  uint32_t bits = 0;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}

}  // namespace

uint16_t half_bits(float x) {
  const uint32_t bits = bits_of(x);
  const uint32_t sign = (bits & kSign) >> 16;
  const uint32_t magnitude = bits & ~kSign;
  uint32_t half = 0;
  if (magnitude > kInfinity) {
    half = 0x7e00;
  } else if (magnitude >= kOverflow) {
    half = 0x7c00;
  } else if (magnitude < kSmallestNormal) {
    // 0.5 has its last bit at 2^-24, as the halves below 2^-14 have.
    half = bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f);
  } else {
    const uint32_t is_odd = magnitude >> kDropped & 1;
    half = (magnitude - kBiasChange + (1u << (kDropped - 1)) - 1 + is_odd) >> kDropped;
  }
  return static_cast<uint16_t>(sign | half);
}

void to_half(const float* from, size_t n, uint16_t* to) {
  for (size_t i = 0; i < n; ++i) to[i] = half_bits(from[i]);
}

}  // namespace csrm
