// What device = "cuda" needs of this machine, found and loaded: the driver and a GPU, ONNX Runtime
// with its CUDA provider, CUDA's libraries beside it, and csrm's operators for CUDA where a graph
// has them. Not: a session (ort_cuda_engine.h). Nothing is loaded before a caller asks for a GPU,
// and nothing is unloaded again.
#ifndef CSRM_SRC_CUDA_SUPPORT_H_
#define CSRM_SRC_CUDA_SUPPORT_H_

#include <string>

#include "cuda_driver.h"
#include "engine_library.h"

namespace csrm {

struct CudaSupport {
  EngineLibrary library;
  const CudaDriver* driver = nullptr;
  CudaDeviceInfo gpu;
};

// Errors: EngineUnavailable, whose message lists everything that is missing and what to install;
// EngineFailed (the driver's).
Result<CudaSupport> find_cuda_support(const std::string& engine_library);

// "NVIDIA H100 80GB HBM3, compute capability 9.0, driver for CUDA 13.0".
std::string describe(const CudaDeviceInfo& gpu);

// csrm's operators for CUDA: libcsrm_cuda.so, which a build with CSRM_BUILD_CUDA=ON makes.
struct CudaOperators {
  OrtStatus* (*add)(const OrtApi* api, OrtSessionOptions* options);
  std::string architectures;  // "80,89,90"
};

// Loads the library named by CSRM_CUDA_LIBRARY, else the one beside libcsrm, else as the loader
// finds it. Thread-safe. Errors: EngineUnavailable (not found, or of another release).
Result<CudaOperators> load_cuda_operators();

}  // namespace csrm

#endif  // CSRM_SRC_CUDA_SUPPORT_H_
