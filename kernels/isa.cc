// Which instruction sets this CPU has; see isa.h. Asked of the CPU once.
#include "isa.h"

#include <string>

#include "amx.h"
#include "self_check.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <cpuid.h>
#endif

namespace csrm::kernels {
namespace {

constexpr Isa kWidestFirst[] = {Isa::kAmx, Isa::kAvx512, Isa::kAvx2};

struct Choice {
  Isa isa = Isa::kPortable;
  bool has_failed[5] = {};  // its self check, by Isa
};

Choice made_choice() noexcept {
  Choice choice;
  for (Isa isa : kWidestFirst) {
    if (!isa_supported(isa)) continue;
    if (passes_self_check(isa)) {
      choice.isa = isa;
      break;
    }
    choice.has_failed[static_cast<int>(isa)] = true;
  }
  return choice;
}

const Choice& choice() noexcept {
  static const Choice made = made_choice();
  return made;
}

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
// Not every compiler's __builtin_cpu_supports knows it.
bool has_f16c() noexcept {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

const char* name_of(Isa isa) noexcept {
  switch (isa) {
    case Isa::kAmx:
      return "amx";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx2:
      return "avx2";
    default:
      return "portable";
  }
}

}  // namespace

std::optional<Isa> isa_named(std::string_view name) noexcept {
  if (name.empty()) return Isa::kBest;
  for (const Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    if (name == name_of(isa)) return isa;
  }
  return std::nullopt;
}

bool isa_supported(Isa isa) noexcept {
  switch (isa) {
    case Isa::kBest:
    case Isa::kPortable:
      return true;
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    case Isa::kAvx512:
#if defined(CSRM_EMULATED_INTRINSICS)
      return isa_supported(Isa::kAvx2);  // which is what emulates it
#else
      return __builtin_cpu_supports("avx512f");
#endif
    case Isa::kAmx:
#if defined(CSRM_EMULATED_INTRINSICS)
      return isa_supported(Isa::kAvx2);
#else
      return isa_supported(Isa::kAvx512) && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vnni") && has_amx();
#endif
#endif
    default:
      return false;
  }
}

Isa resolved_isa(Isa isa) noexcept { return isa == Isa::kBest ? choice().isa : isa; }

Isa vector_isa(Isa isa) noexcept {
  const Isa resolved = resolved_isa(isa);
  return resolved == Isa::kAmx ? Isa::kAvx512 : resolved;
}

std::string chosen_isa() {
  std::string text = name_of(choice().isa);
  for (Isa isa : kWidestFirst) {
    if (choice().has_failed[static_cast<int>(isa)]) {
      text += std::string(" (") + name_of(isa) + " failed its self check)";
    }
  }
  return text;
}

Status check_isa(const char* operator_name, Isa isa) {
  if (isa_supported(isa)) return Status::success();
  return {Code::kUnsupported, std::string(operator_name) + ": this CPU or build lacks version " +
                                  std::to_string(static_cast<int>(isa)) +
                                  "; use the default (Isa::kBest)"};
}

}  // namespace csrm::kernels
