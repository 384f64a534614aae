// Looks in the order of the header; see cuda_support.h.
#include "cuda_support.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "csrm/csrm.h"

namespace csrm {
namespace {

namespace fs = std::filesystem;

constexpr char kProvider[] = "CUDAExecutionProvider";
constexpr char kOperatorsLibrary[] = "libcsrm_cuda.so";

// What ONNX Runtime's CUDA provider links to, in an order in which each finds the earlier ones.
constexpr const char* kCudaLibraries[] = {"libcudart.so.", "libnvrtc.so.",  "libcublasLt.so.",
                                          "libcublas.so.", "libcurand.so.", "libcufft.so.",
                                          "libcudnn.so."};

// The folder of the library or module that holds `address`; empty if it has none.
fs::path folder_of(const void* address) {
  Dl_info info;
  if (::dladdr(address, &info) == 0) return {};
  std::error_code error;
  const fs::path path = fs::canonical(info.dli_fname, error);
  return error ? fs::path() : path.parent_path();
}

bool has_provider(const OrtApi* api, std::string* others) {
  char** names = nullptr;
  int n_names = 0;
  if (!take_status(api, api->GetAvailableProviders(&names, &n_names), "providers").ok()) {
    return false;
  }
  bool is_found = false;
  for (int i = 0; i < n_names; ++i) {
    const std::string name = names[i];
    is_found = is_found || name == kProvider;
    *others += (others->empty() ? "" : ", ") + name;
  }
  OrtStatus* freed = api->ReleaseAvailableProviders(names, n_names);
  if (freed != nullptr) api->ReleaseStatus(freed);
  return is_found;
}

// Opens CUDA's libraries of the packages nvidia-... that pip installed beside the package
// onnxruntime, which the loader would not find by itself. Without them it looks where it always
// does; what is missing then shows when the provider is opened.
void preload_cuda_libraries(const OrtApi* api) {
  // .../onnxruntime/capi/libonnxruntime.so* -> .../nvidia/*/lib
  const fs::path packages =
      folder_of(reinterpret_cast<const void*>(api->CreateStatus)).parent_path().parent_path();
  std::error_code error;
  std::vector<fs::path> files;
  for (fs::directory_iterator part(packages / "nvidia", error), end; !error && part != end;
       part.increment(error)) {
    std::error_code skipped;
    for (fs::directory_iterator file(part->path() / "lib", skipped), last; !skipped && file != last;
         file.increment(skipped)) {
      files.push_back(file->path());
    }
  }
  for (const char* name : kCudaLibraries) {
    for (const fs::path& file : files) {
      if (file.filename().string().rfind(name, 0) != 0) continue;
      ::dlopen(file.c_str(), RTLD_NOW | RTLD_GLOBAL);
    }
  }
}

// Loads the provider and with it the libraries it links to. Errors: EngineUnavailable.
Status load_provider(const OrtApi* api) {
  OrtCUDAProviderOptionsV2* options = nullptr;
  Status status = take_status(api, api->CreateCUDAProviderOptions(&options), "its CUDA provider");
  if (status.ok()) {
    api->ReleaseCUDAProviderOptions(options);
    return status;
  }
  std::string message = std::move(status.message);
  // Before it stands where in ONNX Runtime's source the error arose.
  const size_t at = message.find("Failed to load");
  if (at != std::string::npos) message.erase(0, at);
  while (!message.empty() && message.back() == '\n') message.pop_back();
  return {Code::kEngineUnavailable,
          "ONNX Runtime's CUDA provider cannot be loaded (" + message +
              "); install the library that it names: pip install 'csrm[gpu]' beside the package "
              "onnxruntime-gpu, or CUDA of that version in the loader's path"};
}

std::vector<std::string> operator_candidates() {
  const char* named = std::getenv("CSRM_CUDA_LIBRARY");
  if (named != nullptr && *named != '\0') return {named};
  // libcsrm.so lies in csrm/lib, the Python module in csrm.
  const fs::path folder = folder_of(reinterpret_cast<const void*>(&load_cuda_operators));
  return {(folder / kOperatorsLibrary).string(), (folder / "lib" / kOperatorsLibrary).string(),
          kOperatorsLibrary};
}

}  // namespace

Result<CudaSupport> find_cuda_support(const std::string& engine_library) {
  CudaSupport support;
  std::string missing;
  const auto miss = [&](const std::string& problem) {
    missing += (missing.empty() ? "" : "; and ") + problem;
  };
  const Result<CudaDriver>& driver = cuda_driver();
  if (driver.ok()) {
    support.driver = &driver.value();
    Result<CudaDeviceInfo> gpu = cuda_device(driver.value());
    if (!gpu.ok() && gpu.status().code != Code::kEngineUnavailable) return gpu.status();
    if (gpu.ok()) {
      support.gpu = std::move(gpu).value();
    } else {
      miss(gpu.status().message);
    }
  } else {
    miss(driver.status().message);
  }
  Result<EngineLibrary> library = load_engine_library(engine_library);
  if (!library.ok()) return library.status();
  support.library = std::move(library).value();
  std::string others;
  if (!has_provider(support.library.api, &others)) {
    miss("ONNX Runtime " + support.library.version + " has no CUDA provider (it has " + others +
         "); install the package onnxruntime-gpu instead of onnxruntime: pip install 'csrm[gpu]'");
  } else {
    preload_cuda_libraries(support.library.api);
    if (Status bad = load_provider(support.library.api); !bad.ok()) miss(bad.message);
  }
  if (!missing.empty()) {
    return {Code::kEngineUnavailable,
            "device \"cuda\" cannot be had: " + missing + "; or give device = \"cpu\""};
  }
  return support;
}

std::string describe(const CudaDeviceInfo& gpu) {
  return gpu.name + ", compute capability " + std::to_string(gpu.major) + "." +
         std::to_string(gpu.minor) + ", driver for CUDA " +
         std::to_string(gpu.driver_version / 1000) + "." +
         std::to_string(gpu.driver_version % 1000 / 10);
}

Result<CudaOperators> load_cuda_operators() {
  void* library = nullptr;
  std::string problem;
  for (const std::string& candidate : operator_candidates()) {
    library = ::dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) break;
    const char* message = ::dlerror();
    problem = message != nullptr ? message : "unknown error";
  }
  if (library == nullptr) {
    return {Code::kEngineUnavailable,
            "csrm's operators for CUDA cannot be loaded (" + problem +
                "); build csrm with CSRM_BUILD_CUDA=ON, or give variant = \"portable\""};
  }
  using Text = const char* (*)();
  const auto version = reinterpret_cast<Text>(::dlsym(library, "csrm_cuda_version"));
  const auto architectures = reinterpret_cast<Text>(::dlsym(library, "csrm_cuda_architectures"));
  CudaOperators operators;
  operators.add = reinterpret_cast<decltype(operators.add)>(::dlsym(library, "csrm_cuda_register"));
  if (version == nullptr || architectures == nullptr || operators.add == nullptr ||
      std::string(version()) != CSRM_VERSION) {
    return {Code::kEngineUnavailable, std::string(kOperatorsLibrary) +
                                          " is not of csrm " CSRM_VERSION
                                          "; build and install both together"};
  }
  operators.architectures = architectures();
  return operators;
}

}  // namespace csrm
