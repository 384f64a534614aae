// Which instruction sets this CPU has; see isa.h. Asked of the CPU once.
#include "isa.h"

#include <string>

namespace csrm::kernels {

bool isa_supported(Isa isa) noexcept {
  switch (isa) {
    case Isa::kBest:
    case Isa::kPortable:
      return true;
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::kAvx512:
#if defined(CSRM_EMULATED_INTRINSICS)
      return isa_supported(Isa::kAvx2);  // which is what emulates it
#else
      return __builtin_cpu_supports("avx512f");
#endif
#endif
    default:
      return false;
  }
}

Isa resolved_isa(Isa isa) noexcept {
  static const Isa best = isa_supported(Isa::kAvx512) ? Isa::kAvx512
                          : isa_supported(Isa::kAvx2) ? Isa::kAvx2
                                                      : Isa::kPortable;
  return isa == Isa::kBest ? best : isa;
}

Status check_isa(const char* operator_name, Isa isa) {
  if (isa_supported(isa)) return Status::success();
  return {Code::kUnsupported, std::string(operator_name) + ": this CPU or build lacks version " +
                                  std::to_string(static_cast<int>(isa)) +
                                  "; use the default (Isa::kBest)"};
}

}  // namespace csrm::kernels
