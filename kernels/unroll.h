// CSRM_UNROLL: before a loop over an array of registers (the tiles of the kernels).
#ifndef CSRM_KERNELS_UNROLL_H_
#define CSRM_KERNELS_UNROLL_H_

// Without it gcc keeps such arrays in memory at -O2.
#define CSRM_UNROLL _Pragma("GCC unroll 16")

#endif  // CSRM_KERNELS_UNROLL_H_
