// The x86 intrinsics, and CSRM_TARGET_OF: the attribute of a function that uses those of some
// instruction sets. Not: which of them this CPU has (isa.h).
// A build for tests (cmake/emulated_kernels.cmake) names a header that gives the same intrinsics on
// a CPU that lacks them.
#ifndef CSRM_KERNELS_INTRINSICS_H_
#define CSRM_KERNELS_INTRINSICS_H_

#if defined(CSRM_EMULATED_INTRINSICS)
#include CSRM_EMULATED_INTRINSICS
#else
#include <immintrin.h>

#define CSRM_TARGET_OF(isa) __attribute__((target(isa)))
#endif

#endif  // CSRM_KERNELS_INTRINSICS_H_
