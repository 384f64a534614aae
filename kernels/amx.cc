// Asks the CPU and the system for AMX; see amx.h.
#include "amx.h"

#if CSRM_HAS_AMX && !defined(CSRM_EMULATED_INTRINSICS)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#endif

namespace csrm::kernels {

#if CSRM_HAS_AMX && !defined(CSRM_EMULATED_INTRINSICS)

namespace {

// Not every compiler's __builtin_cpu_supports knows it.
bool cpu_has_amx() noexcept {
  constexpr unsigned kTile = 1u << 24, kInt8 = 1u << 25, kBoth = kTile | kInt8;  // of leaf 7, EDX
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kBoth) == kBoth;
}

bool cpu_has_bf16() noexcept {
  constexpr unsigned kTiles = 1u << 22,
                     kVectors = 1u << 5;  // of leaf 7: EDX; of its second part: EAX
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kTiles) == 0) return false;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & kVectors) != 0;
}

// Whether the system keeps the tiles' configuration and data for each thread.
bool system_keeps_tiles() noexcept {
  constexpr uint32_t kTileState = 3u << 17;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & bit_OSXSAVE) == 0) return false;
  uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & kTileState) == kTileState;
}

// Linux gives a process room for their data only when it asks (5.16 on; others refuse).
bool request_tiles() noexcept {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

bool has_amx() noexcept {
  static const bool has = cpu_has_amx() && system_keeps_tiles() && request_tiles();
  return has;
}

bool has_amx_bf16() noexcept {
  static const bool has = has_amx() && cpu_has_bf16() && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq");
  return has;
}

#else

bool has_amx() noexcept { return CSRM_HAS_AMX != 0; }  // emulated, or not built
bool has_amx_bf16() noexcept { return has_amx(); }

#endif

}  // namespace csrm::kernels
