// NVIDIA's driver library, libcuda.so.1, loaded at run time: the few functions that an engine on a
// GPU needs of it. Not: kernels, and not CUDA's runtime library (ONNX Runtime's provider brings
// that). The declarations are csrm's own, so that building needs no CUDA; a machine without a
// driver gets a Status that says so.
#ifndef CSRM_SRC_CUDA_DRIVER_H_
#define CSRM_SRC_CUDA_DRIVER_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "csrm/status.h"

namespace csrm {

// Opaque handles and numbers of the driver's binary interface.
using CudaContext = struct CudaContextHandle*;
using CudaStream = struct CudaStreamHandle*;
using CudaAddress = uint64_t;
using CudaDevice = int;
using CudaResult = int;  // 0 = success

// The functions by the names that the library exports.
struct CudaDriver {
  CudaResult (*init)(unsigned flags);
  CudaResult (*driver_version)(int* version);  // 1000 * major + 10 * minor
  CudaResult (*error_name)(CudaResult error, const char** name);
  CudaResult (*error_text)(CudaResult error, const char** text);
  CudaResult (*device_count)(int* count);
  CudaResult (*device_at)(CudaDevice* device, int ordinal);
  CudaResult (*device_name)(char* name, int n_bytes, CudaDevice device);
  CudaResult (*device_attribute)(int* value, int attribute, CudaDevice device);
  CudaResult (*retain_context)(CudaContext* context, CudaDevice device);
  CudaResult (*release_context)(CudaDevice device);
  CudaResult (*set_context)(CudaContext context);
  CudaResult (*create_stream)(CudaStream* stream, unsigned flags);
  CudaResult (*destroy_stream)(CudaStream stream);
  CudaResult (*synchronise)(CudaStream stream);
  CudaResult (*allocate)(CudaAddress* address, size_t n_bytes);
  CudaResult (*free)(CudaAddress address);
  CudaResult (*allocate_host)(void** memory, size_t n_bytes, unsigned flags);
  CudaResult (*free_host)(void* memory);
  CudaResult (*upload)(CudaAddress to, const void* from, size_t n_bytes, CudaStream stream);
  CudaResult (*download)(void* to, CudaAddress from, size_t n_bytes, CudaStream stream);
  CudaResult (*copy)(CudaAddress to, CudaAddress from, size_t n_bytes, CudaStream stream);
};

// What is known of the GPU that csrm uses: the first of those the process may see
// (CUDA_VISIBLE_DEVICES).
struct CudaDeviceInfo {
  CudaDevice device = 0;
  std::string name;          // "NVIDIA H100 80GB HBM3"
  int major = 0, minor = 0;  // compute capability
  int driver_version = 0;    // newest CUDA that the driver runs, 13000 for 13.0
};

// Loads `library` (libcuda.so.1 unless a test names another) and its functions.
// Errors: EngineUnavailable, with what is missing and what to install.
Result<CudaDriver> load_cuda_driver(const std::string& library);

// The driver of this process, loaded and initialised once; the outcome never changes. Thread-safe.
// Errors: EngineUnavailable (no driver, or one that cannot start).
const Result<CudaDriver>& cuda_driver();

// The GPU. Errors: EngineUnavailable (no GPU is visible), EngineFailed.
Result<CudaDeviceInfo> cuda_device(const CudaDriver& driver);

// Success, or EngineFailed with the driver's words for `error`; `action` starts the message.
Status cuda_status(const CudaDriver& driver, CudaResult error, const char* action);

}  // namespace csrm

#endif  // CSRM_SRC_CUDA_DRIVER_H_
