// The library is looked up with dlopen and stays loaded; see cuda_driver.h.
#include "cuda_driver.h"

#include <dlfcn.h>

namespace csrm {
namespace {

constexpr char kLibrary[] = "libcuda.so.1";
constexpr int kMajorAttribute = 75, kMinorAttribute = 76;  // compute capability
constexpr size_t kNameBytes = 256;

Status unavailable(const std::string& message) { return {Code::kEngineUnavailable, message}; }

template <typename Function>
bool find(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(::dlsym(library, name));
  return *function != nullptr;
}

// The first name that `library` lacks; null if it has all.
const char* find_functions(void* library, CudaDriver* driver) {
#define CSRM_FIND(member, name) \
  if (!find(library, name, &driver->member)) return name
  CSRM_FIND(init, "cuInit");
  CSRM_FIND(driver_version, "cuDriverGetVersion");
  CSRM_FIND(error_name, "cuGetErrorName");
  CSRM_FIND(error_text, "cuGetErrorString");
  CSRM_FIND(device_count, "cuDeviceGetCount");
  CSRM_FIND(device_at, "cuDeviceGet");
  CSRM_FIND(device_name, "cuDeviceGetName");
  CSRM_FIND(device_attribute, "cuDeviceGetAttribute");
  CSRM_FIND(retain_context, "cuDevicePrimaryCtxRetain");
  CSRM_FIND(release_context, "cuDevicePrimaryCtxRelease_v2");
  CSRM_FIND(set_context, "cuCtxSetCurrent");
  CSRM_FIND(create_stream, "cuStreamCreate");
  CSRM_FIND(destroy_stream, "cuStreamDestroy_v2");
  CSRM_FIND(synchronise, "cuStreamSynchronize");
  CSRM_FIND(allocate, "cuMemAlloc_v2");
  CSRM_FIND(free, "cuMemFree_v2");
  CSRM_FIND(allocate_host, "cuMemHostAlloc");
  CSRM_FIND(free_host, "cuMemFreeHost");
  CSRM_FIND(upload, "cuMemcpyHtoDAsync_v2");
  CSRM_FIND(download, "cuMemcpyDtoHAsync_v2");
  CSRM_FIND(copy, "cuMemcpyDtoDAsync_v2");
#undef CSRM_FIND
  return nullptr;
}

std::string words(const CudaDriver& driver, CudaResult error) {
  const char* name = nullptr;
  const char* text = nullptr;
  driver.error_name(error, &name);
  driver.error_text(error, &text);
  return "CUDA error " + std::to_string(error) + (name != nullptr ? std::string(" ") + name : "") +
         (text != nullptr ? std::string(", ") + text : "");
}

Result<CudaDriver> start_driver() {
  Result<CudaDriver> driver = load_cuda_driver(kLibrary);
  if (!driver.ok()) return driver;
  const CudaResult error = driver.value().init(0);
  if (error == 0) return driver;
  return unavailable("NVIDIA's driver cannot start (" + words(driver.value(), error) +
                     "); check that a GPU is there with nvidia-smi");
}

}  // namespace

Result<CudaDriver> load_cuda_driver(const std::string& path) {
  void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* problem = ::dlerror();
    return unavailable(std::string("no NVIDIA driver is found (") +
                       (problem != nullptr ? problem : "unknown error") +
                       "); install the driver on the host, and give a container the GPU "
                       "(docker run --gpus all)");
  }
  CudaDriver driver{};
  const char* missing = find_functions(library, &driver);
  if (missing == nullptr) return driver;
  return unavailable(std::string("NVIDIA's driver has no ") + missing +
                     "; install one for CUDA 13 (580 or newer)");
}

const Result<CudaDriver>& cuda_driver() {
  static const auto* const driver = new Result<CudaDriver>(start_driver());
  return *driver;
}

Result<CudaDeviceInfo> cuda_device(const CudaDriver& driver) {
  int count = 0;
  if (Status bad = cuda_status(driver, driver.device_count(&count), "GPUs"); !bad.ok()) return bad;
  if (count == 0) {
    return unavailable(
        "NVIDIA's driver shows no GPU to this process; look at CUDA_VISIBLE_DEVICES and "
        "nvidia-smi");
  }
  CudaDeviceInfo info;
  char name[kNameBytes] = {};
  CudaResult error = driver.device_at(&info.device, 0);
  if (error == 0) error = driver.device_name(name, static_cast<int>(sizeof(name)) - 1, info.device);
  if (error == 0) error = driver.device_attribute(&info.major, kMajorAttribute, info.device);
  if (error == 0) error = driver.device_attribute(&info.minor, kMinorAttribute, info.device);
  if (error == 0) error = driver.driver_version(&info.driver_version);
  if (Status bad = cuda_status(driver, error, "the first GPU"); !bad.ok()) return bad;
  info.name = name;
  return info;
}

Status cuda_status(const CudaDriver& driver, CudaResult error, const char* action) {
  if (error == 0) return Status::success();
  return {Code::kEngineFailed, std::string(action) + ": " + words(driver, error)};
}

}  // namespace csrm
