// Linear for any machine: see vector_portable.h; tiles of 6 x 8. The text is linear_tile.h.

// clang-format off: the vectors come first
#include "vector_portable.h"
#include "linear_tile.h"
// clang-format on

namespace csrm::kernels {

const LinearVersion kLinearPortable{kPanelWidth, run_block};

}  // namespace csrm::kernels
