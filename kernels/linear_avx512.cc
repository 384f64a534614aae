// Linear with AVX-512F: see vector_avx512.h; tiles of 6 x 32. The text is linear_tile.h.
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

// clang-format off: the vectors come first
#include "vector_avx512.h"
#include "linear_tile.h"
// clang-format on

namespace csrm::kernels {

const LinearVersion kLinearAvx512{kPanelWidth, run_block};

}  // namespace csrm::kernels

#endif
