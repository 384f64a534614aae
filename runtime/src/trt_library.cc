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

// What csrm was compiled against is the interface of major version 10; TensorRT for RTX counts its
// own releases and has the same.
constexpr int kMajor = NV_TENSORRT_MAJOR;
constexpr int kOldestMajor = 5;  // of TensorRT; those of RTX are below

struct Package {
  const char* name;
  const char* folder;   // beside the package csrm, as pip installs it
  const char* library;  // there, and for the loader
  const char* advice;
};

constexpr Package kPackages[] = {
    {"tensorrt", "tensorrt_libs", "libnvinfer.so.10", "install NVIDIA's package tensorrt"},
    {"tensorrt_rtx", "tensorrt_rtx_libs", "libtensorrt_rtx.so.1",
     "install it with: pip install 'csrm[tensorrt]'"},
};

std::vector<std::string> candidates(const Package& package) {
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
      const fs::path candidate = folder.parent_path() / package.folder / package.library;
      if (folder.filename() == "csrm") found.push_back(candidate.string());
    }
  }
  found.emplace_back(package.library);
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

Status read_version(void* library, TrtLibrary* loaded) {
  using Number = int32_t (*)();
  std::string version;
  for (const char* part : {"Major", "Minor", "Patch", "Build"}) {
    const std::string name = std::string("getInferLib") + part + "Version";
    const auto number = find<Number>(library, name.c_str());
    if (number == nullptr) {
      return {Code::kEngineUnavailable, "the library of " + loaded->package + " has no " + name +
                                            "; it is too old or of something else"};
    }
    version += (version.empty() ? "" : ".") + std::to_string(number());
  }
  loaded->version = version;
  const bool is_rtx = loaded->package == "tensorrt_rtx";
  const int major = numbers(version)[0];
  if (is_rtx != (major < kOldestMajor)) {
    return {Code::kEngineUnavailable,
            "the library named in CSRM_TENSORRT_LIBRARY is not of " + loaded->package};
  }
  if (is_rtx || major == kMajor) return Status::success();
  return {Code::kUnsupported, "TensorRT " + version + " is installed; this build of csrm runs " +
                                  std::to_string(kMajor) + ".x"};
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

Result<TrtLibrary> load_trt_library(const std::string& name) {
  const Package* package = nullptr;
  for (const Package& known : kPackages) {
    if (name == known.name) package = &known;
  }
  if (package == nullptr) {
    return {Code::kUnsupported, "this build of csrm runs engines of tensorrt and tensorrt_rtx"};
  }
  void* library = nullptr;
  std::string problem;
  for (const std::string& candidate : candidates(*package)) {
    library = ::dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) break;
    const char* message = ::dlerror();
    problem = message != nullptr ? message : "unknown error";
  }
  if (library == nullptr) {
    return {Code::kEngineUnavailable, std::string(package->library) + " cannot be loaded (" +
                                          problem + "); " + package->advice +
                                          ", or name the library in CSRM_TENSORRT_LIBRARY"};
  }
  TrtLibrary loaded;
  loaded.package = name;
  loaded.create_runtime =
      find<decltype(loaded.create_runtime)>(library, "createInferRuntime_INTERNAL");
  const auto interface_version = find<int32_t (*)()>(library, "getInferLibVersion");
  if (loaded.create_runtime == nullptr || interface_version == nullptr) {
    return {Code::kEngineUnavailable,
            std::string(package->library) + " is no library of TensorRT; " + package->advice};
  }
  loaded.interface_version = interface_version();
  if (Status bad = read_version(library, &loaded); !bad.ok()) return bad;
  return loaded;
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
