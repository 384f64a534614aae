// PrefixAttention in plain C++: see vector_portable.h. The text is prefix_attention_tile.h.
// clang-format off: the vectors come first
#include "vector_portable.h"
#include "prefix_attention_tile.h"
// clang-format on

namespace csrm::kernels {

const AttentionVersion kAttentionPortable{kTileRows, kTaskTiles, scratch_size, run_task};

}  // namespace csrm::kernels
