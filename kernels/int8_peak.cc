// The loops of int8_peak.h. Each has as many chains of sums as hide the latency of an instruction.
#include "int8_peak.h"

#include <algorithm>
#include <chrono>
#include <string>

#include "amx.h"
#include "linear_i8.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include "intrinsics.h"
#include "unroll.h"
#endif

namespace csrm::kernels {
namespace {

// Runs `n` steps of a loop; the operations of a step.
using Loop = double (*)(int64_t n);

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

constexpr int kChains = 12;

CSRM_TARGET_OF("avx2,fma") double run_avx2(int64_t n) {
  __m256i sums[kChains], x = _mm256_set1_epi16(3);
  CSRM_UNROLL
  for (int c = 0; c < kChains; ++c) sums[c] = _mm256_setzero_si256();
  for (int64_t i = 0; i < n; ++i) {
    CSRM_UNROLL
    for (int c = 0; c < kChains; ++c) {
      __asm__ volatile("" : "+x"(x));  // not the same product every time
      sums[c] = _mm256_add_epi32(sums[c], _mm256_madd_epi16(x, x));
    }
  }
  CSRM_UNROLL
  for (int c = 0; c < kChains; ++c) __asm__ volatile("" : "+x"(sums[c]));
  return kChains * 2.0 * 16;
}

#define CSRM_TARGET_PEAK CSRM_TARGET_OF("avx512f,avx512bw,avx512vnni,avx2,fma")

template <bool kIsBytes>
CSRM_TARGET_PEAK double run_avx512(int64_t n) {
  const __m512i x = _mm512_set1_epi32(0x01020304);
  __m512i sums[kChains];
  CSRM_UNROLL
  for (int c = 0; c < kChains; ++c) sums[c] = _mm512_set1_epi32(c);
  for (int64_t i = 0; i < n; ++i) {
    CSRM_UNROLL
    for (int c = 0; c < kChains; ++c) {
      sums[c] = kIsBytes ? _mm512_dpbusd_epi32(sums[c], x, x) : _mm512_dpwssd_epi32(sums[c], x, x);
    }
  }
  int32_t all[16];
  for (int c = 0; c < kChains; ++c) {
    _mm512_storeu_si512(all, sums[c]);
    __asm__ volatile("" : : "r"(all) : "memory");
  }
  return kChains * 2.0 * (kIsBytes ? 64 : 32);
}

#endif

#if CSRM_HAS_AMX

template <bool kIsBytes>
CSRM_TARGET_OF("amx-tile,amx-int8")
double run_amx(int64_t n) {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t n_rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } shapes;
  __asm__ volatile("" : : "r"(&shapes) : "memory");
  _tile_loadconfig(&shapes);
  for (int64_t i = 0; i < n; ++i) {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbusd(2, 5, 6);
    _tile_dpbusd(3, 5, 7);
  }
  _tile_release();
  return 4 * 2.0 * 16 * 16 * 64 / (kIsBytes ? 1 : 2);
}

#endif

Loop loop_of([[maybe_unused]] Isa isa, [[maybe_unused]] bool is_bytes) noexcept {
  switch (isa) {
#if CSRM_HAS_AMX
    case Isa::kAmx:
      return is_bytes ? run_amx<true> : run_amx<false>;
#endif
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    case Isa::kAvx512:
      return is_bytes ? run_avx512<true> : run_avx512<false>;
    case Isa::kAvx2:
      return run_avx2;
#endif
    default:
      return nullptr;
  }
}

}  // namespace

Result<double> int8_peak(Isa isa, int64_t levels, double seconds) noexcept {
  if (levels != kByteLevels && levels != kWordLevels) {
    return Status{Code::kBadArgument, "int8_peak: levels is " + std::to_string(levels) +
                                          "; it must be " + std::to_string(kByteLevels) + " or " +
                                          std::to_string(kWordLevels)};
  }
  const Isa wanted = resolved_isa(isa);
  const Loop loop = linear_i8_supported(wanted) ? loop_of(wanted, levels == kByteLevels) : nullptr;
  if (loop == nullptr) {
    return Status{Code::kUnsupported, "int8_peak: this CPU or build lacks version " +
                                          std::to_string(static_cast<int>(isa)) +
                                          ", or it has no instruction for products of int8"};
  }
  using Clock = std::chrono::steady_clock;
  constexpr int64_t kSteps = 2000;  // some 50 us
  double best = 0.0;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  do {
    const auto start = Clock::now();
    const double n = loop(kSteps) * kSteps;
    const std::chrono::duration<double> took = Clock::now() - start;
    best = std::max(best, n / std::max(took.count(), 1e-9));
  } while (Clock::now() < end);
  return best;
}

}  // namespace csrm::kernels
