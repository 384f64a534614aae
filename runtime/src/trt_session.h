// A deserialised TensorRT engine and its execution contexts, one for each profile -> Engine.
// Not: finding the library, the file or the GPU (trt_engine.cc): what is here runs as well over
// host memory with another implementation of TensorRT's interfaces, as its test does.
#ifndef CSRM_SRC_TRT_SESSION_H_
#define CSRM_SRC_TRT_SESSION_H_

#include <memory>
#include <string>
#include <vector>

#include "device_memory.h"
#include "engine.h"
#include "trt_library.h"

namespace csrm {

struct TrtSessionParts {
  std::shared_ptr<TrtLogger> logger;  // of the runtime; outlives it
  std::unique_ptr<nvinfer1::IRuntime> runtime;
  std::unique_ptr<nvinfer1::ICudaEngine> engine;  // made by `runtime`
  std::vector<EngineProfile> profiles;            // of the engine, in its order
  ModelShape shape;
  std::string version;  // of the library, for Engine::version()
  std::shared_ptr<DeviceMemory> memory;
  cudaStream_t stream = nullptr;  // the memory's
};

// Errors: BadArtifact (another signature or other profiles than the manifest's).
Result<std::unique_ptr<Engine>> make_trt_session(TrtSessionParts parts);

}  // namespace csrm

#endif  // CSRM_SRC_TRT_SESSION_H_
