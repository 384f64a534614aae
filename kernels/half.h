// Half precision (IEEE 754 binary16), in which a cache may keep keys and values: a float to the
// nearest number of 16 bits and back. Not: arithmetic; csrm computes in fp32. The vectors
// (vector_*.h) give the same bits, so a key is the same number whoever rounds it.
#ifndef CSRM_KERNELS_HALF_H_
#define CSRM_KERNELS_HALF_H_

#include <cstdint>
#include <cstring>

namespace csrm::kernels {

// The least size that is nearer to 65536 than to any number of half precision.
constexpr float kTooLargeForHalf = 65520.0f;

// The nearest number, ties to even. What is too large becomes NaN and not an infinity: a key of
// -inf would hide its token, where a NaN makes the score an error.
inline uint16_t to_half(float value) noexcept {
  constexpr uint32_t kLeastNormal = 0x38800000;  // 2^-14
  constexpr uint32_t kRebias = 0x38000000;       // exponents differ by 127 - 15
  constexpr uint16_t kNan = 0x7e00;
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  uint32_t size = bits & 0x7fffffff;
  float positive;
  std::memcpy(&positive, &size, sizeof(positive));
  if (!(positive < kTooLargeForHalf)) return static_cast<uint16_t>(sign | kNan);
  if (size < kLeastNormal) {
    // Multiples of 2^-24, which is what the addition rounds to.
    const float moved = positive + 0.5f;
    std::memcpy(&size, &moved, sizeof(size));
    return static_cast<uint16_t>(sign | (size - 0x3f000000));
  }
  size += 0xfff + (size >> 13 & 1);
  return static_cast<uint16_t>(sign | ((size - kRebias) >> 13));
}

// The same number as a float.
inline float from_half(uint16_t half) noexcept {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t size = half & 0x7fff;
  uint32_t bits = (size << 13) + 0x38000000;
  if (size >= 0x7c00) bits = 0x7f800000 | size << 13;
  if (size < 0x0400) {
    const float multiple = static_cast<float>(size) * 0x1p-24f;
    std::memcpy(&bits, &multiple, sizeof(bits));
  }
  bits |= sign;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_HALF_H_
