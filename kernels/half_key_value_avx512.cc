// HalfKeyValue with AVX-512F: see vector_avx512.h. The text is half_key_value_tile.h.
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

// clang-format off: the vectors come first
#include "vector_avx512.h"
#include "half_key_value_tile.h"
// clang-format on

namespace csrm::kernels {

const HalfKeyValueRows kHalfKeyValueAvx512 = half_key_value_rows;

}  // namespace csrm::kernels

#endif
