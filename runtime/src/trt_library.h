// TensorRT's library loaded with dlopen -> its runtime object. Not: an engine (trt_engine.h).
// Internal to the trt_*.cc files, which a build without CSRM_TENSORRT=ON leaves out. The library
// stays loaded until the process ends.
//
// One build runs one package: the one whose headers it was compiled with. Calls go through tables
// of functions, in which TensorRT adds at the end within a major version, while TensorRT for RTX
// has dropped deprecated entries between its releases: with headers of another release every later
// call would be a different function.
#ifndef CSRM_SRC_TRT_LIBRARY_H_
#define CSRM_SRC_TRT_LIBRARY_H_

#include <NvInferRuntime.h>

#include <memory>
#include <mutex>
#include <string>

#include "csrm/status.h"

namespace csrm {

// Keeps the last error that TensorRT logs; everything else is dropped. Thread-safe.
class TrtLogger final : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* message) noexcept override;

  // The last error, bounded in length, and forgets it; "it gives no reason" if there is none.
  std::string take_error();

 private:
  std::mutex mutex_;
  std::string last_;
};

struct TrtLibrary {
  std::string package;  // "tensorrt" or "tensorrt_rtx"
  std::string version;  // "10.14.1.48"
  void* (*create_runtime)(void* logger, int32_t version) = nullptr;
  int32_t interface_version = 0;  // what create_runtime takes
};

// The package that this build is for: "tensorrt" or "tensorrt_rtx".
const char* trt_package();

// Loads the library of that package. It is looked for where CSRM_TENSORRT_LIBRARY says, else in the
// package pip installed beside the package csrm, else as the loader finds it.
// Errors: EngineUnavailable (not found, or none of TensorRT; the message says what to install),
// Unsupported (a release with another interface than the headers').
Result<TrtLibrary> load_trt_library();

// Whether a library of `version` has the functions, in the places, of the headers.
Status check_trt_interface(const std::string& version);

// Whether `package` is the one that this build is for. Errors: Unsupported.
Status check_trt_package(const std::string& package);

// Success if an engine of the version `built` runs with `library`: the same release, or a later one
// of the same major version where the engine is version-compatible. Errors: Unsupported.
Status check_trt_version(const std::string& built, bool is_version_compatible,
                         const TrtLibrary& library);

}  // namespace csrm

#endif  // CSRM_SRC_TRT_LIBRARY_H_
