// The memory of an NVIDIA GPU, through its driver (cuda_driver.h).
// Not: kernels or sessions. ONNX Runtime's CUDA provider shares the context, which is the device's
// primary one, and works on this stream.
#ifndef CSRM_SRC_CUDA_MEMORY_H_
#define CSRM_SRC_CUDA_MEMORY_H_

#include <memory>

#include "cuda_driver.h"
#include "device_memory.h"

namespace csrm {

class CudaMemory final : public DeviceMemory {
 public:
  // `driver` lives as long as the process. Errors: EngineFailed.
  static Result<std::shared_ptr<CudaMemory>> open(const CudaDriver& driver, CudaDevice device);
  ~CudaMemory() override;

  Device device() const override { return Device::kCuda; }
  const char* engine_name() const override { return "Cuda"; }
  CudaStream stream() const { return stream_; }

  Status enter() override;
  Result<void*> allocate(size_t n_bytes) override;
  void free(void* memory) noexcept override;
  Result<void*> allocate_host(size_t n_bytes) override;
  void free_host(void* memory) noexcept override;
  Status upload(void* to, const void* from, size_t n_bytes) override;
  Status download(void* to, const void* from, size_t n_bytes) override;
  Status copy(void* to, const void* from, size_t n_bytes) override;
  Status wait() override;

 private:
  CudaMemory(const CudaDriver& driver, CudaDevice device) : driver_(driver), device_(device) {}
  Status check(CudaResult error, const char* action) const {
    return cuda_status(driver_, error, action);
  }

  const CudaDriver& driver_;
  const CudaDevice device_;
  CudaContext context_ = nullptr;
  CudaStream stream_ = nullptr;
};

}  // namespace csrm

#endif  // CSRM_SRC_CUDA_MEMORY_H_
