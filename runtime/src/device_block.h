// Memory that a run's inputs and results go through: one block on the device, staged and read in
// pinned host memory. Not: which runs use it (bound_engine.cc).
#ifndef CSRM_SRC_DEVICE_BLOCK_H_
#define CSRM_SRC_DEVICE_BLOCK_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "device_memory.h"
#include "run_shape.h"

namespace csrm {

// Pinned memory of the host, freed with this object, as DeviceMemory's functions are called.
class HostBuffer {
 public:
  HostBuffer() = default;
  HostBuffer(const HostBuffer&) = delete;
  HostBuffer& operator=(const HostBuffer&) = delete;
  ~HostBuffer() { clear(); }

  Status allocate(std::shared_ptr<DeviceMemory> memory, size_t n_bytes) {
    clear();
    Result<void*> made = memory->allocate_host(n_bytes > 0 ? n_bytes : 1);
    if (!made.ok()) return made.status();
    memory_ = std::move(memory);
    data_ = static_cast<char*>(made.value());
    return Status::success();
  }
  char* data() const { return data_; }
  void clear() noexcept {
    if (data_ != nullptr) memory_->free_host(data_);
    data_ = nullptr;
  }

 private:
  std::shared_ptr<DeviceMemory> memory_;
  char* data_ = nullptr;
};

// Memory for the inputs and results of runs of up to `input_bytes` and `n_results`.
struct DeviceBlock {
  size_t input_bytes = 0;
  int64_t n_results = 0;
  DeviceBuffer inputs;
  HostBuffer staged;   // the inputs, before they are copied
  HostBuffer results;  // rewards, then compliances

  bool fits(const RunShape& shape) const {
    return input_offsets(shape).back() <= input_bytes && shape.n_results() <= n_results;
  }
  // Errors: those of the memory; then it fits nothing.
  Status make(const std::shared_ptr<DroppedBuffers>& home,
              const std::shared_ptr<DeviceMemory>& memory, size_t n_bytes, int64_t results_count);
  void clear() noexcept {
    input_bytes = 0;
    inputs = DeviceBuffer();
    staged.clear();
    results.clear();
  }
};

inline Status DeviceBlock::make(const std::shared_ptr<DroppedBuffers>& home,
                                const std::shared_ptr<DeviceMemory>& memory, size_t n_bytes,
                                int64_t results_count) {
  input_bytes = 0;
  Result<DeviceBuffer> made = DeviceBuffer::allocate(home, n_bytes);
  if (!made.ok()) return made.status();
  inputs = std::move(made).value();
  if (Status bad = staged.allocate(memory, n_bytes); !bad.ok()) return bad;
  const size_t result_bytes = 2 * static_cast<size_t>(results_count) * sizeof(float);
  if (Status bad = results.allocate(memory, result_bytes); !bad.ok()) return bad;
  input_bytes = n_bytes;
  n_results = results_count;
  return Status::success();
}

}  // namespace csrm

#endif  // CSRM_SRC_DEVICE_BLOCK_H_
