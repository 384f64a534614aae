// SwiGlu in plain C++: see vector_portable.h. The text is swiglu_tile.h.
// clang-format off: the vectors come first
#include "vector_portable.h"
#include "swiglu_tile.h"
// clang-format on

namespace csrm::kernels {

const SwiGluRows kSwiGluPortable = swiglu_rows;

}  // namespace csrm::kernels
