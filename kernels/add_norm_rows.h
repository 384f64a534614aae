// The versions of AddNorm (add_norm_tile.h) as add_norm_cpu.cc calls them. Not: arithmetic.
#ifndef CSRM_KERNELS_ADD_NORM_ROWS_H_
#define CSRM_KERNELS_ADD_NORM_ROWS_H_

#include <cstdint>

#include "add_norm.h"

namespace csrm::kernels {

// Rows [first, end).
using AddNormRows = void (*)(const AddNormParams& params, int64_t first, int64_t end);

extern const AddNormRows kAddNormPortable, kAddNormAvx2, kAddNormAvx512;

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_ADD_NORM_ROWS_H_
