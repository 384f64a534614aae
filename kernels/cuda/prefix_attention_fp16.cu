// PrefixAttention on tensor cores for fp16: one file per type, so that they compile side by side.
#include "kernels/cuda/prefix_attention_mma.cuh"

namespace csrm::kernels::cuda {

cudaError_t launch_attention_fp16(const PrefixAttentionParams& params, AttentionPlan plan,
                                  cudaStream_t stream) {
  return launch_attention_mma<__half>(params, plan, stream);
}

}  // namespace csrm::kernels::cuda
