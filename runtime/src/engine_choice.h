// Which engine runs an artifact: a wish for a device and a variant, what the artifact has and what
// this machine can run -> one loaded Engine. Not: an engine (ort_engine.h, ort_cuda_engine.h).
#ifndef CSRM_SRC_ENGINE_CHOICE_H_
#define CSRM_SRC_ENGINE_CHOICE_H_

#include <memory>
#include <string>

#include "artifact.h"
#include "csrm/status.h"
#include "engine.h"

namespace csrm {

// The device called `name`; "" is kAuto. Errors: BadArgument (no device of csrm's).
Result<Device> parse_device(const std::string& name);

// Errors: BadArgument unless `name` is empty or a variant of csrm's.
Status check_variant(const std::string& name);

struct EngineWish {
  Device device = Device::kAuto;
  std::string variant;  // empty: the best that the device runs
};

struct LoadedEngine {
  std::unique_ptr<Engine> engine;
  std::string variant;
  std::string note;  // why kAuto left the GPU out, if it tried it
};

// The wished engine. A device or variant that was named is taken or an error, never replaced.
// kAuto takes the first device of docs/gpu.md's order that can be had; there the CPU always can.
// Errors: Unsupported (the artifact has no such variant), EngineUnavailable (the device cannot be
// had here; the message says what is missing and what to install); else those of the engine.
Result<LoadedEngine> load_engine(const Artifact& artifact, const EngineWish& wish,
                                 const EngineOptions& options);

}  // namespace csrm

#endif  // CSRM_SRC_ENGINE_CHOICE_H_
