// Linear with AVX2 and FMA: see vector_avx2.h; tiles of 6 x 16. The text is linear_tile.h.
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

// clang-format off: the vectors come first
#include "vector_avx2.h"
#include "linear_tile.h"
// clang-format on

namespace csrm::kernels {

const LinearVersion kLinearAvx2{kPanelWidth, run_block};

}  // namespace csrm::kernels

#endif
