// libonnxruntime loaded with dlopen -> its C API. Internal to the engines of ONNX Runtime.
// Not: a session. The library stays loaded until the process ends.
#ifndef CSRM_SRC_ENGINE_LIBRARY_H_
#define CSRM_SRC_ENGINE_LIBRARY_H_

#include <string>

#include "csrm/status.h"
#include "onnxruntime_c_api.h"

namespace csrm {

struct EngineLibrary {
  const OrtApi* api = nullptr;
  std::string version;
};

// Loads `path`; when it is empty, what csrm.h says under "The engine". Sets ORT_DISABLE_TELEMETRY=1
// in the environment unless it is set. Thread-safe but for that: nobody may read the environment
// meanwhile while it is not set.
// Errors: EngineUnavailable (not found, no OrtGetApiBase, older than API version 17).
Result<EngineLibrary> load_engine_library(const std::string& path);

// A Status for `error`, which is released; `action` starts the message. Null is success.
Status take_status(const OrtApi* api, OrtStatus* error, const char* action);

}  // namespace csrm

#endif  // CSRM_SRC_ENGINE_LIBRARY_H_
