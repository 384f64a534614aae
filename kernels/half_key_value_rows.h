// The versions of HalfKeyValue (half_key_value_tile.h) as half_key_value.cc calls them. Not:
// arithmetic.
#ifndef CSRM_KERNELS_HALF_KEY_VALUE_ROWS_H_
#define CSRM_KERNELS_HALF_KEY_VALUE_ROWS_H_

#include <cstdint>

#include "half_key_value.h"

namespace csrm::kernels {

// Tokens [first, end) of batch entry `batch`.
using HalfKeyValueRows = void (*)(const HalfKeyValueParams& params, int64_t batch, int64_t first,
                                  int64_t end);

extern const HalfKeyValueRows kHalfKeyValuePortable, kHalfKeyValueAvx2, kHalfKeyValueAvx512;

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_HALF_KEY_VALUE_ROWS_H_
