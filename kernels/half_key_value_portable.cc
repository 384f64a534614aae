// HalfKeyValue in plain C++: see vector_portable.h. The text is half_key_value_tile.h.
// clang-format off: the vectors come first
#include "vector_portable.h"
#include "half_key_value_tile.h"
// clang-format on

namespace csrm::kernels {

const HalfKeyValueRows kHalfKeyValuePortable = half_key_value_rows;

}  // namespace csrm::kernels
