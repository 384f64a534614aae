// ONNX Runtime's CUDA provider as an Engine: one session on the GPU, bound by bound_engine.h.
// Not: how a run is bound, nor what the machine must have (cuda_support.h).
#ifndef CSRM_SRC_ORT_CUDA_ENGINE_H_
#define CSRM_SRC_ORT_CUDA_ENGINE_H_

#include <memory>
#include <string>

#include "engine.h"

namespace csrm {

// Loads the model at `model_path` onto the first GPU. has_operators: it is model.cuda.onnx, written
// in csrm's operators for CUDA; its runs are captured in CUDA graphs unless CSRM_CUDA_GRAPHS=0 is
// in the environment. Else it is the portable graph in fp32, the reference, launched operator by
// operator. Errors: EngineUnavailable (something is missing; the message says what), EngineFailed,
// BadArtifact.
Result<std::unique_ptr<Engine>> load_ort_cuda_engine(const std::string& model_path,
                                                     const ModelShape& shape, bool has_operators,
                                                     const EngineOptions& options);

}  // namespace csrm

#endif  // CSRM_SRC_ORT_CUDA_ENGINE_H_
