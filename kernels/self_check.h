// Whether a version of the operators computes on this CPU what the portable one does. Asked once,
// before the first use of that version, so that an instruction set on which a kernel or a compiler
// is wrong costs speed and not verdicts. Not: a test (tests/python and tests/cpp have those); a
// version that this CPU cannot run must not be asked about.
#ifndef CSRM_KERNELS_SELF_CHECK_H_
#define CSRM_KERNELS_SELF_CHECK_H_

#include "isa.h"

namespace csrm::kernels {

// True if every operator gives the portable version's results up to rounding on small cases of
// fixed numbers. `isa` is a version, not kBest. Some 100 us. Thread-safe.
bool passes_self_check(Isa isa) noexcept;

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_SELF_CHECK_H_
