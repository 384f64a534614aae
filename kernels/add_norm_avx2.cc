// AddNorm with AVX2 and FMA: see vector_avx2.h. The text is add_norm_tile.h.
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

// clang-format off: the vectors come first
#include "vector_avx2.h"
#include "add_norm_tile.h"
// clang-format on

namespace csrm::kernels {

const AddNormRows kAddNormAvx2 = add_norm_rows;

}  // namespace csrm::kernels

#endif
