// See trt_library.h.
#include "trt_library.h"

#include <dlfcn.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

namespace csrm {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxMessageBytes = 400;

struct Package {
  const char* name;
  const char* folder;   // beside the package csrm, as pip installs it
  const char* library;  // there, and for the loader
  int major, minor;     // of the headers
  const char* advice;
};

#ifdef TRT_MAJOR_RTX  // RTX's own headers, named by TENSORRT_INCLUDE_DIR
constexpr Package kPackage{"tensorrt_rtx",         "tensorrt_rtx_libs",
                           "libtensorrt_rtx.so.1", TRT_MAJOR_RTX,
                           TRT_MINOR_RTX,          "install it with: pip install 'csrm[tensorrt]'"};
#else
constexpr Package kPackage{"tensorrt",         "tensorrt_libs",
                           "libnvinfer.so.10", NV_TENSORRT_MAJOR,
                           NV_TENSORRT_MINOR,  "install NVIDIA's package tensorrt, version 10"};
constexpr int kOldestMinor = 1;  // the first with all that csrm calls
#endif

std::vector<std::string> candidates() {
  const char* named = std::getenv("CSRM_TENSORRT_LIBRARY");
  if (named != nullptr && *named != '\0') return {named};
  std::vector<std::string> found;
  Dl_info self;
  std::error_code error;
  if (::dladdr(reinterpret_cast<const void*>(&load_trt_library), &self) != 0) {
    // .../csrm/_core.so and .../csrm/lib/libcsrm.so -> .../tensorrt_libs/libnvinfer.so.10
    const fs::path library = fs::canonical(self.dli_fname, error);
    for (fs::path folder = library.parent_path(); !error && folder.has_relative_path();
         folder = folder.parent_path()) {
      const fs::path candidate = folder.parent_path() / kPackage.folder / kPackage.library;
      if (folder.filename() == "csrm") found.push_back(candidate.string());
    }
  }
  found.emplace_back(kPackage.library);
  return found;
}

template <typename Function>
Function find(void* library, const char* name) {
  return reinterpret_cast<Function>(::dlsym(library, name));
}

// The four numbers of "10.14.1.48"; missing ones are 0.
std::array<int, 4> numbers(const std::string& version) {
  std::array<int, 4> parts{};
  std::sscanf(version.c_str(), "%d.%d.%d.%d", &parts[0], &parts[1], &parts[2], &parts[3]);
  return parts;
}

Status read_version(void* library, std::string* version) {
  using Number = int32_t (*)();
  for (const char* part : {"Major", "Minor", "Patch", "Build"}) {
    const std::string name = std::string("getInferLib") + part + "Version";
    const auto number = find<Number>(library, name.c_str());
    if (number == nullptr) {
      return {Code::kEngineUnavailable, std::string("the library of ") + kPackage.name +
                                            " has no " + name + "; it is too old"};
    }
    *version += (version->empty() ? "" : ".") + std::to_string(number());
  }
  return Status::success();
}

}  // namespace

void TrtLogger::log(Severity severity, const char* message) noexcept {
  if (severity != Severity::kERROR && severity != Severity::kINTERNAL_ERROR) return;
  try {
    const std::lock_guard<std::mutex> lock(mutex_);
    last_.assign(message).resize(std::min(last_.size(), kMaxMessageBytes));
  } catch (const std::exception&) {
    return;  // no memory for a message
  }
}

std::string TrtLogger::take_error() {
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::string error = std::exchange(last_, {});
  return error.empty() ? "it gives no reason" : error;
}

const char* trt_package() { return kPackage.name; }

Status check_trt_interface(const std::string& version) {
  const std::array<int, 4> runtime = numbers(version);
#ifdef TRT_MAJOR_RTX
  if (runtime[0] == kPackage.major && runtime[1] == kPackage.minor) return Status::success();
#else
  if (runtime[0] == kPackage.major && runtime[1] >= kOldestMinor) return Status::success();
#endif
  return {Code::kUnsupported, std::string(kPackage.name) + " " + version +
                                  " is installed; this build of csrm was " +
                                  "compiled with the headers of " + std::to_string(kPackage.major) +
                                  "." + std::to_string(kPackage.minor) +
                                  "; compile it with those of the other (TENSORRT_INCLUDE_DIR)"};
}

Result<TrtLibrary> load_trt_library() {
  void* library = nullptr;
  std::string problem;
  for (const std::string& candidate : candidates()) {
    library = ::dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) break;
    const char* message = ::dlerror();
    problem = message != nullptr ? message : "unknown error";
  }
  if (library == nullptr) {
    return {Code::kEngineUnavailable, std::string(kPackage.library) + " cannot be loaded (" +
                                          problem + "); " + kPackage.advice +
                                          ", or name the library in CSRM_TENSORRT_LIBRARY"};
  }
  TrtLibrary loaded;
  loaded.package = kPackage.name;
  loaded.create_runtime =
      find<decltype(loaded.create_runtime)>(library, "createInferRuntime_INTERNAL");
  const auto interface_version = find<int32_t (*)()>(library, "getInferLibVersion");
  if (loaded.create_runtime == nullptr || interface_version == nullptr) {
    return {Code::kEngineUnavailable,
            std::string(kPackage.library) + " is no library of TensorRT; " + kPackage.advice};
  }
  loaded.interface_version = interface_version();
  if (Status bad = read_version(library, &loaded.version); !bad.ok()) return bad;
  if (Status bad = check_trt_interface(loaded.version); !bad.ok()) return bad;
  return loaded;
}

Status check_trt_package(const std::string& package) {
  if (package == kPackage.name) return Status::success();
  return {Code::kUnsupported,
          "the engine is of " + package + " and this build of csrm runs those of " + kPackage.name +
              "; build an engine with that package, or csrm with the other's headers "
              "(TENSORRT_INCLUDE_DIR)"};
}

Status check_trt_version(const std::string& built, bool is_version_compatible,
                         const TrtLibrary& library) {
  const std::array<int, 4> engine = numbers(built), runtime = numbers(library.version);
  const bool is_later = engine[0] == runtime[0] && engine <= runtime;
  if (engine == runtime || (is_version_compatible && is_later)) return Status::success();
  return {Code::kUnsupported, "the engine was built by " + library.package + " " + built + " and " +
                                  library.version +
                                  " is installed; build it again with csrm export --tensorrt"};
}

}  // namespace csrm
