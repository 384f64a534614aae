// AddNorm in plain C++: see vector_portable.h. The text is add_norm_tile.h.
// clang-format off: the vectors come first
#include "vector_portable.h"
#include "add_norm_tile.h"
// clang-format on

namespace csrm::kernels {

const AddNormRows kAddNormPortable = add_norm_rows;

}  // namespace csrm::kernels
