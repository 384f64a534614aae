// The versions of a kernel, by instruction set, and which of them this CPU can run.
// Not: any kernel. Every kernel has a portable version; the others are chosen at run time.
#ifndef CSRM_KERNELS_ISA_H_
#define CSRM_KERNELS_ISA_H_

#include <optional>
#include <string>
#include <string_view>

#include "csrm/status.h"

namespace csrm::kernels {

// Each version of a kernel sums in its own fixed order, so versions differ in the last bits.
// A CPU with one has those before it, and an operator without a version of its own for one takes
// the next before it.
enum class Isa : int { kBest = 0, kPortable = 1, kAvx2 = 2, kAvx512 = 3, kAmx = 4 };

// The version of that name, as the operators' attribute isa has it ("" = kBest); none of another.
std::optional<Isa> isa_named(std::string_view name) noexcept;

// True if this build and this CPU can run `isa`. kBest and kPortable always can. kAmx is AVX-512
// with VNNI and tiles of int8, on Linux: the first call asks the system for the tiles' state, once
// for the process, and what it refuses counts as absent. Thread-safe.
bool isa_supported(Isa isa) noexcept;

// `isa` itself; for kBest the widest version this CPU can run that passes its self check
// (self_check.h), which the first call makes. Never kBest. Thread-safe.
Isa resolved_isa(Isa isa) noexcept;

// The same with kAvx512 for kAmx: of an operator that has no version with tiles.
Isa vector_isa(Isa isa) noexcept;

// The name of resolved_isa(kBest), as the operators' attribute isa has it, and which wider ones
// failed their self check. Thread-safe.
std::string chosen_isa();

// Unsupported, with a message that begins with the operator's name, if `isa` cannot run here.
Status check_isa(const char* operator_name, Isa isa);

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_ISA_H_
