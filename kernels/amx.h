// AMX, its tiles: whether this build has versions with them and whether they can run here.
// Not: arithmetic (linear_i8_amx.cc, prefix_attention_amx.cc); their intrinsics come with
// intrinsics.h.
#ifndef CSRM_KERNELS_AMX_H_
#define CSRM_KERNELS_AMX_H_

// Whether this compiler and system can build them. GCC has a header for each part, Clang one for
// all.
#if defined(CSRM_EMULATED_INTRINSICS)
#define CSRM_HAS_AMX 1
#elif defined(__x86_64__) && defined(__linux__) && (defined(__GNUC__) || defined(__clang__))
#if __has_include(<amxint8intrin.h>) || __has_include(<amxintrin.h>)
#define CSRM_HAS_AMX 1
#endif
#endif
#ifndef CSRM_HAS_AMX
#define CSRM_HAS_AMX 0
#endif

namespace csrm::kernels {

// Whether this CPU has AMX with int8 and the system lets this process use it. The first call asks
// for that permission, which holds for all threads and is never given back: from then on the system
// refuses alternate signal stacks that are too small for the tiles (8 KB more). Thread-safe.
bool has_amx() noexcept;

// has_amx(), and tiles and vectors of bfloat16 too.
bool has_amx_bf16() noexcept;

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_AMX_H_
