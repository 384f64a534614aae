#include "engine_library.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <vector>

namespace csrm {
namespace {

constexpr uint32_t kApiVersion = 17;  // of the headers csrm is built with
constexpr size_t kMaxMessageBytes = 400;

const char* dl_message() {
  const char* message = ::dlerror();
  return message != nullptr ? message : "unknown error";
}

// ONNX Runtime 1.29 and newer reports models and runs to its maker, and keeps an identifier and a
// database of its own in the user's cache folder, unless this is set before it starts. A caller's
// own value stays. Not DisableTelemetryEvents: that comes after the first report, and would also
// speak for a host program that uses the same library.
void decline_telemetry() { ::setenv("ORT_DISABLE_TELEMETRY", "1", 0); }

// Of the package onnxruntime beside the package csrm whose lib/libcsrm.so holds this function:
// .../csrm/lib/libcsrm.so -> .../onnxruntime/capi/libonnxruntime.so*. Empty if there is none.
std::vector<std::string> libraries_beside_package() {
  namespace fs = std::filesystem;
  Dl_info self;
  if (::dladdr(reinterpret_cast<const void*>(&load_engine_library), &self) == 0) return {};
  std::error_code error;
  const fs::path library = fs::canonical(self.dli_fname, error);
  if (error) return {};
  const fs::path packages = library.parent_path().parent_path().parent_path();
  std::vector<std::string> found;
  for (fs::directory_iterator it(packages / "onnxruntime" / "capi", error), end;
       !error && it != end; it.increment(error)) {
    if (it->path().filename().string().rfind("libonnxruntime.so", 0) == 0) {
      found.push_back(it->path().string());
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

// What to try, in order: csrm.h, "The engine".
std::vector<std::string> candidate_libraries(const std::string& path) {
  if (!path.empty()) return {path};
  const char* named = std::getenv("CSRM_ENGINE_LIBRARY");
  if (named != nullptr && *named != '\0') return {named};
  std::vector<std::string> candidates = libraries_beside_package();
  candidates.insert(candidates.end(), {"libonnxruntime.so.1", "libonnxruntime.so"});
  return candidates;
}

}  // namespace

Result<EngineLibrary> load_engine_library(const std::string& path) {
  decline_telemetry();
  const std::vector<std::string> candidates = candidate_libraries(path);
  void* library = nullptr;
  std::string problem;
  for (const std::string& candidate : candidates) {
    library = ::dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) break;
    if (problem.empty()) problem = dl_message();
  }
  if (library == nullptr) {
    return {Code::kEngineUnavailable,
            "libonnxruntime cannot be loaded (" + problem +
                "); set engine_library in the options of the scorer, or CSRM_ENGINE_LIBRARY in the "
                "environment, to the library of ONNX Runtime 1.17 or newer"};
  }
  using GetApiBase = const OrtApiBase*(ORT_API_CALL*)();
  const auto get_api_base = reinterpret_cast<GetApiBase>(::dlsym(library, "OrtGetApiBase"));
  const OrtApiBase* base = get_api_base != nullptr ? get_api_base() : nullptr;
  if (base == nullptr) {
    return {Code::kEngineUnavailable,
            "the engine library exports no OrtGetApiBase; set engine_library in the options of the "
            "scorer to libonnxruntime of ONNX Runtime 1.17 or newer"};
  }
  EngineLibrary engine;
  engine.version = base->GetVersionString();
  engine.api = base->GetApi(kApiVersion);
  if (engine.api == nullptr) {
    return {Code::kEngineUnavailable,
            "ONNX Runtime " + engine.version + " has no C API version 17; install 1.17 or newer"};
  }
  return engine;
}

Status take_status(const OrtApi* api, OrtStatus* error, const char* action) {
  if (error == nullptr) return Status::success();
  std::string message = std::string(action) + ": " + api->GetErrorMessage(error);
  api->ReleaseStatus(error);
  if (message.size() > kMaxMessageBytes) message.resize(kMaxMessageBytes);
  return {Code::kEngineFailed, std::move(message)};
}

}  // namespace csrm
