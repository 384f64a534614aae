// One ONNX Runtime session on the CPU as an Engine. The library is loaded at run time, so csrm
// links to no engine; nothing of it is unloaded again (its threads may outlive a session).
#ifndef CSRM_SRC_ORT_ENGINE_H_
#define CSRM_SRC_ORT_ENGINE_H_

#include <memory>
#include <string>

#include "engine.h"

namespace csrm {

// Loads the library and the model at `model_path`, and checks the model's inputs and outputs
// against the signature of docs/datapath.md and `shape`. `custom_operators` registers the
// operators of kernels/, which model.fused.onnx needs.
// Errors: EngineUnavailable (no library, or older than 1.17), EngineFailed (the session cannot
// be made), BadArtifact (another signature).
Result<std::unique_ptr<Engine>> load_ort_engine(const std::string& model_path,
                                                const ModelShape& shape, bool custom_operators,
                                                const EngineOptions& options);

}  // namespace csrm

#endif  // CSRM_SRC_ORT_ENGINE_H_
