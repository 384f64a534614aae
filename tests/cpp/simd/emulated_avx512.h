// The AVX-512 intrinsics that the kernels use, on a CPU with AVX2: the same sources then run here,
// lane for lane with the results of the instructions (rounding included, MXCSR at its default).
// What an intrinsic of 512 bits computes is written as a loop over its lanes in plain C++, after
// the pseudo-code of Intel's guide. Only for tests: kernels/intrinsics.h includes it when
// CSRM_EMULATED_INTRINSICS names it. Intrinsics that no kernel uses are missing on purpose.
#ifndef CSRM_TESTS_CPP_SIMD_EMULATED_AVX512_H_
#define CSRM_TESTS_CPP_SIMD_EMULATED_AVX512_H_

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

// The compiler must not use a wider vector than this CPU has, whatever the kernel asks for.
#define CSRM_TARGET_OF(isa) __attribute__((target("avx2,fma,f16c")))
#define CSRM_EMULATED CSRM_TARGET_OF("avx2,fma,f16c") __attribute__((always_inline)) inline

namespace csrm_emulated {

// A vector of 512 bits as an array of its lanes; T is float, int32_t, int8_t or uint8_t.
template <typename T>
struct Lanes {
  static constexpr int kCount = 64 / sizeof(T);
  alignas(64) T lane[kCount];
};

template <typename T, typename V>
CSRM_EMULATED Lanes<T> lanes(const V& vector) {
  static_assert(sizeof(V) == 64, "a vector of 512 bits");
  Lanes<T> result;
  std::memcpy(&result, &vector, sizeof(result));
  return result;
}

template <typename V, typename T>
CSRM_EMULATED V vector(const Lanes<T>& from) {
  V result;
  std::memcpy(&result, &from, sizeof(result));
  return result;
}

// result[i] = of(i) for every lane.
template <typename V, typename T, typename F>
CSRM_EMULATED V each(F of) {
  Lanes<T> result;
  for (int i = 0; i < Lanes<T>::kCount; ++i) result.lane[i] = of(i);
  return vector<V>(result);
}

// The compiler's vectors have operators, which it makes of what this CPU has.
CSRM_EMULATED __m512 add(__m512 a, __m512 b) { return a + b; }
CSRM_EMULATED __m512 sub(__m512 a, __m512 b) { return a - b; }
CSRM_EMULATED __m512 mul(__m512 a, __m512 b) { return a * b; }
CSRM_EMULATED __m512 div(__m512 a, __m512 b) { return a / b; }
CSRM_EMULATED __m512i bit_and(__m512i a, __m512i b) { return a & b; }
CSRM_EMULATED __m512i bit_or(__m512i a, __m512i b) { return a | b; }

CSRM_EMULATED __m512 fma(__m512 a, __m512 b, __m512 c) {
  const auto x = lanes<float>(a), y = lanes<float>(b), z = lanes<float>(c);
  return each<__m512, float>(
      [&](int i) { return __builtin_fmaf(x.lane[i], y.lane[i], z.lane[i]); });
}

// The second operand where one of the two is NaN or both are zero.
CSRM_EMULATED __m512 max(__m512 a, __m512 b) { return a > b ? a : b; }

template <typename T>
CSRM_EMULATED __m512i set1(T value) {
  return each<__m512i, T>([&](int) { return value; });
}
CSRM_EMULATED __m512 set1(float value) {
  return each<__m512, float>([&](int) { return value; });
}

template <typename V>
CSRM_EMULATED V loaded(const void* from) {
  V result;
  std::memcpy(&result, from, sizeof(result));
  return result;
}
template <typename V>
CSRM_EMULATED void stored(void* to, const V& value) {
  std::memcpy(to, &value, sizeof(value));
}

// Lanes outside the mask are zero; their memory is not touched.
CSRM_EMULATED __m512 maskz_load(__mmask16 mask, const float* from) {
  return each<__m512, float>([&](int i) { return (mask >> i & 1) != 0 ? from[i] : 0.0f; });
}

CSRM_EMULATED __m512 blend(__mmask16 mask, __m512 no, __m512 yes) {
  const auto n = lanes<float>(no), y = lanes<float>(yes);
  return each<__m512, float>([&](int i) { return (mask >> i & 1) != 0 ? y.lane[i] : n.lane[i]; });
}

template <int Comparison>
CSRM_EMULATED __mmask16 compare(__m512 a, __m512 b) {
  static_assert(Comparison == _CMP_LT_OQ || Comparison == _CMP_NLT_UQ, "as the kernels use it");
  const auto x = lanes<float>(a), y = lanes<float>(b);
  unsigned mask = 0;
  for (int i = 0; i < 16; ++i) {
    const bool is_less = x.lane[i] < y.lane[i];
    mask |= static_cast<unsigned>(is_less == (Comparison == _CMP_LT_OQ)) << i;
  }
  return static_cast<__mmask16>(mask);
}

CSRM_EMULATED __m512i shift_left(__m512i a, unsigned count) {
  const auto x = lanes<uint32_t>(a);
  return each<__m512i, uint32_t>([&](int i) { return count > 31 ? 0u : x.lane[i] << count; });
}

CSRM_EMULATED __m512i widened(__m128i bytes) {
  int8_t from[16];
  std::memcpy(from, &bytes, sizeof(from));
  return each<__m512i, int32_t>([&](int i) { return static_cast<int32_t>(from[i]); });
}

CSRM_EMULATED __m512 to_floats(__m512i a) {
  const auto x = lanes<int32_t>(a);
  return each<__m512, float>([&](int i) { return static_cast<float>(x.lane[i]); });
}

CSRM_EMULATED __m512i widened_words(__m256i bytes) {
  int8_t from[32];
  std::memcpy(from, &bytes, sizeof(from));
  return each<__m512i, int16_t>([&](int i) { return static_cast<int16_t>(from[i]); });
}

// To the nearest integer, ties to even; INT32_MIN where there is none.
CSRM_EMULATED __m512i rounded(__m512 a) {
  const auto x = lanes<float>(a);
  return each<__m512i, int32_t>([&](int i) {
    const float whole = __builtin_nearbyintf(x.lane[i]);
    return whole >= -2147483648.0f && whole < 2147483648.0f ? static_cast<int32_t>(whole)
                                                            : INT32_MIN;
  });
}

// Half precision, half by half: a float to the nearest, ties to even, and back.
CSRM_EMULATED __m512 from_halves(__m256i halves) {
  uint16_t from[16];
  std::memcpy(from, &halves, sizeof(from));
  Lanes<float> result;
  for (int i = 0; i < 16; ++i) result.lane[i] = _cvtsh_ss(from[i]);
  return vector<__m512>(result);
}

CSRM_EMULATED __m256i to_halves(__m512 a) {
  const auto x = lanes<float>(a);
  uint16_t halves[16];
  for (int i = 0; i < 16; ++i) halves[i] = _cvtss_sh(x.lane[i], _MM_FROUND_TO_NEAREST_INT);
  __m256i result;
  std::memcpy(&result, halves, sizeof(result));
  return result;
}

// The low bits of every lane, one after the other.
template <typename V, typename T>
CSRM_EMULATED V truncated(__m512i a) {
  const auto x = lanes<int32_t>(a);
  T low[16];
  for (int i = 0; i < 16; ++i) low[i] = static_cast<T>(x.lane[i]);
  V result;
  static_assert(sizeof(result) == sizeof(low), "16 lanes");
  std::memcpy(&result, low, sizeof(result));
  return result;
}

// Sums of 32 bits plus products of two pairs of 16, wrapping around.
CSRM_EMULATED __m512i dot_words(__m512i sum, __m512i a, __m512i b) {
  const auto s = lanes<uint32_t>(sum);
  const auto x = lanes<int16_t>(a), y = lanes<int16_t>(b);
  return each<__m512i, uint32_t>([&](int i) {
    uint32_t result = s.lane[i];
    for (int j = 2 * i; j < 2 * i + 2; ++j) {
      result += static_cast<uint32_t>(int32_t{x.lane[j]} * int32_t{y.lane[j]});
    }
    return result;
  });
}

// The same of four products of a byte without and one with a sign.
CSRM_EMULATED __m512i dot_bytes(__m512i sum, __m512i a, __m512i b) {
  const auto s = lanes<uint32_t>(sum);
  const auto x = lanes<uint8_t>(a);
  const auto y = lanes<int8_t>(b);
  return each<__m512i, uint32_t>([&](int i) {
    uint32_t result = s.lane[i];
    for (int j = 4 * i; j < 4 * i + 4; ++j) {
      result += static_cast<uint32_t>(int32_t{x.lane[j]} * int32_t{y.lane[j]});
    }
    return result;
  });
}

template <typename T>
CSRM_EMULATED __m512i max(__m512i a, __m512i b) {
  const auto x = lanes<T>(a), y = lanes<T>(b);
  return each<__m512i, T>([&](int i) { return x.lane[i] > y.lane[i] ? x.lane[i] : y.lane[i]; });
}

CSRM_EMULATED __m512 min(__m512 a, __m512 b) { return a < b ? a : b; }

CSRM_EMULATED __m512i add_integers(__m512i a, __m512i b) {
  const auto x = lanes<uint32_t>(a), y = lanes<uint32_t>(b);
  return each<__m512i, uint32_t>([&](int i) { return x.lane[i] + y.lane[i]; });
}

CSRM_EMULATED __m512i shift_words_right(__m512i a, unsigned count) {
  const auto x = lanes<int16_t>(a);
  return each<__m512i, int16_t>([&](int i) { return static_cast<int16_t>(x.lane[i] >> count); });
}

// Numbers of half the size, as near as they come: of each 128 bits those of `a`, then those of `b`.
template <typename To, typename From>
CSRM_EMULATED __m512i packed(__m512i a, __m512i b) {
  constexpr int kEach = 16 / sizeof(To), kHalf = kEach / 2;
  const auto x = lanes<From>(a), y = lanes<From>(b);
  return each<__m512i, To>([&](int i) {
    const int at = i / kEach * kHalf + i % kHalf;
    const From value = i % kEach < kHalf ? x.lane[at] : y.lane[at];
    constexpr From kLeast = std::numeric_limits<To>::min(), kMost = std::numeric_limits<To>::max();
    return static_cast<To>(value < kLeast ? kLeast : value > kMost ? kMost : value);
  });
}

// result[i] = a[order[i]].
CSRM_EMULATED __m512i permuted(__m512i order, __m512i a) {
  const auto at = lanes<int32_t>(order), x = lanes<int32_t>(a);
  return each<__m512i, int32_t>([&](int i) { return x.lane[at.lane[i] & 15]; });
}

// Memory of lanes outside the mask is not touched.
CSRM_EMULATED void mask_store(float* to, __mmask16 mask, __m512 value) {
  const auto x = lanes<float>(value);
  for (int i = 0; i < 16; ++i) {
    if ((mask >> i & 1) != 0) to[i] = x.lane[i];
  }
}

}  // namespace csrm_emulated

// The intrinsics of the compiler's header are functions or macros; both give way to these. All the
// masked forms are used with a full mask but those of loads and blends.
#undef _mm512_cmp_ps_mask
#undef _mm512_maskz_cvtps_ph
#define _mm512_add_ps csrm_emulated::add
#define _mm512_sub_ps csrm_emulated::sub
#define _mm512_mul_ps csrm_emulated::mul
#define _mm512_div_ps csrm_emulated::div
#define _mm512_fmadd_ps csrm_emulated::fma
#define _mm512_set1_ps csrm_emulated::set1
#define _mm512_setzero_ps() csrm_emulated::set1(0.0f)
#define _mm512_set1_epi32(v) csrm_emulated::set1<int32_t>(v)
#define _mm512_loadu_ps csrm_emulated::loaded<__m512>
#define _mm512_storeu_ps csrm_emulated::stored<__m512>
#define _mm512_store_ps csrm_emulated::stored<__m512>
#define _mm512_maskz_loadu_ps csrm_emulated::maskz_load
#define _mm512_maskz_cvtepi8_epi32(mask, v) csrm_emulated::widened(v)
#define _mm512_maskz_cvtepi8_epi16(mask, v) csrm_emulated::widened_words(v)
#define _mm512_maskz_cvtps_epi32(mask, v) csrm_emulated::rounded(v)
#define _mm512_maskz_cvtepi32_epi16(mask, v) csrm_emulated::truncated<__m256i, int16_t>(v)
#define _mm512_maskz_cvtepi32_epi8(mask, v) csrm_emulated::truncated<__m128i, int8_t>(v)
#define _mm512_maskz_cvtph_ps(mask, v) csrm_emulated::from_halves(v)
#define _mm512_maskz_cvtps_ph(mask, v, how) csrm_emulated::to_halves(v)
#define _mm512_loadu_si512 csrm_emulated::loaded<__m512i>
#define _mm512_dpwssd_epi32 csrm_emulated::dot_words
#define _mm512_dpbusd_epi32 csrm_emulated::dot_bytes
#define _mm512_maskz_cvtepi32_ps(mask, v) csrm_emulated::to_floats(v)
#define _mm512_maskz_slli_epi32(mask, v, count) csrm_emulated::shift_left(v, count)
#define _mm512_mask_blend_ps csrm_emulated::blend
#define _mm512_cmp_ps_mask(a, b, how) csrm_emulated::compare<how>(a, b)
#define _mm512_maskz_max_ps(mask, a, b) \
  csrm_emulated::blend(mask, csrm_emulated::set1(0.0f), csrm_emulated::max(a, b))
#define _mm512_maskz_mov_ps(mask, v) csrm_emulated::blend(mask, csrm_emulated::set1(0.0f), v)
#define _mm512_maskz_max_epi32(mask, a, b) csrm_emulated::max<int32_t>(a, b)
#define _mm512_maskz_min_ps(mask, a, b) csrm_emulated::min(a, b)
#define _mm512_add_epi32 csrm_emulated::add_integers
#define _mm512_srai_epi16 csrm_emulated::shift_words_right
#define _mm512_set1_epi16(v) csrm_emulated::set1<int16_t>(v)
#define _mm512_packs_epi32 csrm_emulated::packed<int16_t, int32_t>
#define _mm512_packs_epi16 csrm_emulated::packed<int8_t, int16_t>
#define _mm512_maskz_permutexvar_epi32(mask, order, v) csrm_emulated::permuted(order, v)
#define _mm512_storeu_si512 csrm_emulated::stored<__m512i>
#define _mm512_mask_storeu_ps csrm_emulated::mask_store
#define _mm512_castps_si512 (__m512i)
#define _mm512_castsi512_ps (__m512)
#define _mm512_and_si512 csrm_emulated::bit_and
#define _mm512_or_si512 csrm_emulated::bit_or

#include "emulated_amx.h"
#include "emulated_bf16.h"

#endif  // CSRM_TESTS_CPP_SIMD_EMULATED_AVX512_H_
