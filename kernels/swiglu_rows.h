// The versions of SwiGlu (swiglu_tile.h) as swiglu_cpu.cc calls them. Not: arithmetic.
#ifndef CSRM_KERNELS_SWIGLU_ROWS_H_
#define CSRM_KERNELS_SWIGLU_ROWS_H_

#include <cstdint>

#include "swiglu.h"

namespace csrm::kernels {

// Rows [first, end).
using SwiGluRows = void (*)(const SwiGluParams& params, int64_t first, int64_t end);

extern const SwiGluRows kSwiGluPortable, kSwiGluAvx2, kSwiGluAvx512;

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_SWIGLU_ROWS_H_
