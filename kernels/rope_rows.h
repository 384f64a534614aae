// The versions of Rope (rope_tile.h) as rope_cpu.cc calls them. Not: arithmetic.
#ifndef CSRM_KERNELS_ROPE_ROWS_H_
#define CSRM_KERNELS_ROPE_ROWS_H_

#include <cstdint>

#include "rope.h"

namespace csrm::kernels {

// Rows [first, end).
using RopeRows = void (*)(const RopeParams& params, int64_t first, int64_t end);

extern const RopeRows kRopePortable, kRopeAvx2, kRopeAvx512;

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_ROPE_ROWS_H_
