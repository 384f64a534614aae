// PrefixAttention with AVX2 and FMA: see vector_avx2.h. The text is prefix_attention_tile.h.
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

// clang-format off: the vectors come first
#include "vector_avx2.h"
#include "prefix_attention_tile.h"
// clang-format on

namespace csrm::kernels {

const AttentionVersion kAttentionAvx2{kTileRows, kTaskTiles, scratch_size, run_task};

}  // namespace csrm::kernels

#endif
