// A TensorRT engine file as an Engine: token ids and a prefix -> keys and values, rewards and
// compliances, on the GPU. Not: building the file (csrm.export.tensorrt), nor the GPU's memory
// (device_memory.h). TensorRT is loaded at run time (trt_library.h); a build
// without CSRM_TENSORRT=ON has trt_absent.cc instead, whose engine is never to be had.
//
// A call takes the first profile whose tokens, prefix and judged tokens it fits; more rows than
// that profile has run in several launches, one after another on the engine's one stream. Rows are
// padded as everywhere on a GPU (run_shape.h) where the profile allows it. A prefix is copied to
// the device once, in the engine's type, and stays with its Prefix (device_prefix.h).
#ifndef CSRM_SRC_TRT_ENGINE_H_
#define CSRM_SRC_TRT_ENGINE_H_

#include <memory>
#include <string>

#include "artifact.h"
#include "csrm/status.h"
#include "engine.h"

namespace csrm {

// The GPU and the library of TensorRT that are here, in words.
// Errors: EngineUnavailable (no driver, GPU or library that this build runs; the message lists what
// is missing and what to install), EngineFailed (the driver's).
Result<std::string> find_trt_support();

struct LoadedTrtEngine {
  std::unique_ptr<Engine> engine;
  std::string precision;  // "fp16", "bf16" or "fp32"
};

// What speaks against running `file` here, as far as that shows without reading it.
// Errors: as find_trt_support; Unsupported (package, version or architecture).
Status check_trt_engine(const TrtEngineFile& file);

// The first of the artifact's TensorRT engines that can run here.
// Errors: Unsupported (the artifact has none, or none of this build's package, its version and this
// GPU's architecture), EngineUnavailable (as find_trt_support), DigestMismatch (the file changed
// after it was verified), BadArtifact (another signature), EngineFailed (TensorRT's message).
Result<LoadedTrtEngine> load_trt_engine(const Artifact& artifact);

}  // namespace csrm

#endif  // CSRM_SRC_TRT_ENGINE_H_
