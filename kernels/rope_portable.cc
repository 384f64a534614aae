// Rope in plain C++: see vector_portable.h. The text is rope_tile.h.
// clang-format off: the vectors come first
#include "vector_portable.h"
#include "rope_tile.h"
// clang-format on

namespace csrm::kernels {

const RopeRows kRopePortable = rope_rows;

}  // namespace csrm::kernels
