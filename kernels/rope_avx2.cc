// Rope with AVX2 and FMA: see vector_avx2.h. The text is rope_tile.h.
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

// clang-format off: the vectors come first
#include "vector_avx2.h"
#include "rope_tile.h"
// clang-format on

namespace csrm::kernels {

const RopeRows kRopeAvx2 = rope_rows;

}  // namespace csrm::kernels

#endif
