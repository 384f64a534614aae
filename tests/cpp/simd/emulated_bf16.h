// The intrinsics of prefix_attention_amx.cc, on a CPU with AVX2: bfloat16 in vectors and tiles, and
// what moves words between vectors. Included by emulated_avx512.h behind emulated_amx.h, only for
// tests; see there.
#ifndef CSRM_TESTS_CPP_SIMD_EMULATED_BF16_H_
#define CSRM_TESTS_CPP_SIMD_EMULATED_BF16_H_

#include "emulated_amx.h"

namespace csrm_emulated {

// bfloat16 knows no denormals, neither as operands nor as results nor in sums: they are zeros.
inline float without_denormals(float value) {
  return std::fabs(value) < std::numeric_limits<float>::min() ? std::copysign(0.0f, value) : value;
}

inline uint16_t rounded_to_bf16(float value) {
  const float normal = without_denormals(value);
  uint32_t bits;
  std::memcpy(&bits, &normal, sizeof(bits));
  if (std::isnan(value)) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float from_bf16(const uint8_t* bytes) {
  uint16_t word;
  std::memcpy(&word, bytes, sizeof(word));
  const uint32_t bits = uint32_t{word} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return without_denormals(value);
}

CSRM_EMULATED __m512i to_bf16(__m512 high, __m512 low) {
  const auto x = lanes<float>(low), y = lanes<float>(high);
  return each<__m512i, uint16_t>(
      [&](int i) { return rounded_to_bf16(i < 16 ? x.lane[i] : y.lane[i - 16]); });
}

// sums += a * b, two numbers of a row of `a` with two of a column of `b` at a time: one sum of the
// first, one of the second ones, and both at the end.
inline void multiply_bf16_tiles(int sums, int a, int b) {
  const auto [to, x, y] = TileProduct(sums, a, b);
  for (int r = 0; r < to.n_rows; ++r) {
    for (int c = 0; c < to.row_bytes; c += 4) {
      float parts[2] = {0.0f, 0.0f}, sum;
      for (int k = 0; k < x.row_bytes; k += 4) {
        for (int i = 0; i < 2; ++i) {
          const float value = from_bf16(x.bytes[r] + k + 2 * i);
          const float weight = from_bf16(y.bytes[k / 4] + c + 2 * i);
          parts[i] = without_denormals(__builtin_fmaf(value, weight, parts[i]));
        }
      }
      std::memcpy(&sum, to.bytes[r] + c, sizeof(sum));
      sum = without_denormals(without_denormals(sum) + without_denormals(parts[0] + parts[1]));
      std::memcpy(to.bytes[r] + c, &sum, sizeof(sum));
    }
  }
}

// t - floor(t); 0 for an infinity.
template <int kHow>
CSRM_EMULATED __m512 above_floor(__m512 t) {
  static_assert(kHow == 9, "as the kernel uses it");
  const auto x = lanes<float>(t);
  return each<__m512, float>(
      [&](int i) { return std::isinf(x.lane[i]) ? 0.0f : x.lane[i] - std::floor(x.lane[i]); });
}

// a * 2^floor(t).
CSRM_EMULATED __m512 scaled(__m512 a, __m512 t) {
  const auto x = lanes<float>(a), y = lanes<float>(t);
  return each<__m512, float>([&](int i) {
    if (std::isnan(x.lane[i]) || std::isnan(y.lane[i])) return x.lane[i] + y.lane[i];
    const float power = std::fmin(std::fmax(std::floor(y.lane[i]), -1000.0f), 1000.0f);
    return std::ldexp(x.lane[i], static_cast<int>(power));
  });
}

template <typename T>
CSRM_EMULATED uint64_t equal(__m512i a, __m512i b) {
  const auto x = lanes<T>(a), y = lanes<T>(b);
  uint64_t mask = 0;
  for (int i = 0; i < Lanes<T>::kCount; ++i) mask |= uint64_t{x.lane[i] == y.lane[i]} << i;
  return mask;
}

// Of each 128 bits, the lanes of its first half (or second) of `a` and `b`, in turn.
template <typename T, bool kIsHigh>
CSRM_EMULATED __m512i unpacked(uint32_t mask, __m512i a, __m512i b) {
  constexpr int kEach = 16 / sizeof(T);
  static_assert(Lanes<T>::kCount <= 32, "bits of the mask");
  if (mask != (1ull << Lanes<T>::kCount) - 1) std::abort();  // masks are not emulated
  const auto x = lanes<T>(a), y = lanes<T>(b);
  return each<__m512i, T>([&](int i) {
    const int at = i / kEach * kEach + i % kEach / 2 + (kIsHigh ? kEach / 2 : 0);
    return i % 2 == 0 ? x.lane[at] : y.lane[at];
  });
}

CSRM_EMULATED __m512i with_quarter(__m512i v, __m128i part, int quarter) {
  std::memcpy(reinterpret_cast<char*>(&v) + 16 * quarter, &part, sizeof(part));
  return v;
}

CSRM_EMULATED __m512i from_quarter(__m128i part) {
  return with_quarter(each<__m512i, int32_t>([](int) { return 0; }), part, 0);
}

// result[i] = that of `a`, then `b`, at order[i].
CSRM_EMULATED __m512 chosen(__m512 a, __m512i order, __m512 b) {
  const auto x = lanes<float>(a), y = lanes<float>(b);
  const auto at = lanes<int32_t>(order);
  return each<__m512, float>([&](int i) {
    return (at.lane[i] & 16) != 0 ? y.lane[at.lane[i] & 15] : x.lane[at.lane[i] & 15];
  });
}

}  // namespace csrm_emulated

#undef _mm512_maskz_reduce_ps
#undef _mm512_maskz_inserti32x4
#undef _tile_dpbf16ps
#define _mm512_cvtne2ps_pbh csrm_emulated::to_bf16
#define _mm512_maskz_reduce_ps(mask, t, how) csrm_emulated::above_floor<how>(t)
#define _mm512_maskz_scalef_ps(mask, a, t) csrm_emulated::scaled(a, t)
#define _mm512_cmpeq_epi16_mask(a, b) static_cast<__mmask32>(csrm_emulated::equal<uint16_t>(a, b))
#define _mm512_mask_max_ps(otherwise, mask, a, b) \
  csrm_emulated::blend(mask, otherwise, csrm_emulated::max(a, b))
#define _mm512_maskz_unpacklo_epi16 csrm_emulated::unpacked<uint16_t, false>
#define _mm512_maskz_unpackhi_epi16 csrm_emulated::unpacked<uint16_t, true>
#define _mm512_maskz_unpacklo_epi32 csrm_emulated::unpacked<uint32_t, false>
#define _mm512_maskz_unpackhi_epi32 csrm_emulated::unpacked<uint32_t, true>
#define _mm512_maskz_unpacklo_epi64 csrm_emulated::unpacked<uint64_t, false>
#define _mm512_maskz_unpackhi_epi64 csrm_emulated::unpacked<uint64_t, true>
#define _mm512_maskz_inserti32x4(mask, v, part, quarter) \
  csrm_emulated::with_quarter(v, part, quarter)
#define _mm512_castsi128_si512 csrm_emulated::from_quarter
#define _mm512_permutex2var_ps csrm_emulated::chosen
#define _tile_dpbf16ps csrm_emulated::multiply_bf16_tiles

#endif  // CSRM_TESTS_CPP_SIMD_EMULATED_BF16_H_
