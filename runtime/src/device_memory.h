// The memory of a device and the one stream an engine works on there: what bound_engine.h needs of
// a GPU, and nothing that needs one to be compiled. Not: kernels or sessions.
// Children: cuda_memory.h; the tests have one over host memory, so that everything above this line
// runs without a GPU.
#ifndef CSRM_SRC_DEVICE_MEMORY_H_
#define CSRM_SRC_DEVICE_MEMORY_H_

#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <utility>

#include "csrm/status.h"
#include "engine.h"

namespace csrm {

// Every function but those of the next two comments must be called by one thread at a time, after
// enter(). Copies are enqueued on the stream: they are done, in order, when wait() returns.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;

  // Thread-safe, constant: the device, and what ONNX Runtime calls its memory ("Cuda").
  virtual Device device() const = 0;
  virtual const char* engine_name() const = 0;

  // Makes the device the calling thread's.
  virtual Status enter() = 0;
  virtual Result<void*> allocate(size_t n_bytes) = 0;
  virtual void free(void* memory) noexcept = 0;
  // Host memory that the device reads and writes itself, at the same address.
  virtual Result<void*> allocate_host(size_t n_bytes) = 0;
  virtual void free_host(void* memory) noexcept = 0;
  virtual Status upload(void* to, const void* from, size_t n_bytes) = 0;
  virtual Status download(void* to, const void* from, size_t n_bytes) = 0;
  virtual Status copy(void* to, const void* from, size_t n_bytes) = 0;
  virtual Status wait() = 0;

 protected:
  DeviceMemory() = default;
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
};

// Buffers that were dropped, by any thread at any time, and wait to be freed by one that is between
// two runs: memory must not be freed while a graph is captured. Thread-safe.
class DroppedBuffers {
 public:
  explicit DroppedBuffers(std::shared_ptr<DeviceMemory> memory) : memory_(std::move(memory)) {}
  DroppedBuffers(const DroppedBuffers&) = delete;
  DroppedBuffers& operator=(const DroppedBuffers&) = delete;
  ~DroppedBuffers() { free_all(); }

  void drop(std::list<void*>* buffer) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    buffers_.splice(buffers_.end(), *buffer);
  }

  // As the functions of DeviceMemory: by one thread at a time.
  void free_all() noexcept {
    std::list<void*> dropped;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      dropped.swap(buffers_);
    }
    if (dropped.empty() || !memory_->enter().ok()) return;
    for (void* buffer : dropped) memory_->free(buffer);
  }

  DeviceMemory* memory() const { return memory_.get(); }

 private:
  const std::shared_ptr<DeviceMemory> memory_;
  std::mutex mutex_;
  std::list<void*> buffers_;
};

// Memory of a device, dropped with this object. Not thread-safe itself.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(DeviceBuffer&&) = default;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    release();
    home_ = std::move(other.home_);
    held_.swap(other.held_);
    n_bytes_ = std::exchange(other.n_bytes_, 0);
    return *this;
  }
  ~DeviceBuffer() { release(); }

  // At least one byte, so that an empty tensor has an address too. After enter().
  static Result<DeviceBuffer> allocate(std::shared_ptr<DroppedBuffers> home, size_t n_bytes) {
    DeviceBuffer made;
    made.held_.push_back(nullptr);
    Result<void*> memory = home->memory()->allocate(n_bytes > 0 ? n_bytes : 1);
    if (!memory.ok()) {
      made.held_.clear();
      return memory.status();
    }
    made.held_.front() = memory.value();
    made.home_ = std::move(home);
    made.n_bytes_ = n_bytes;
    return made;
  }

  char* data() const { return held_.empty() ? nullptr : static_cast<char*>(held_.front()); }
  size_t n_bytes() const { return n_bytes_; }

 private:
  void release() noexcept {
    if (!held_.empty()) home_->drop(&held_);
  }

  std::shared_ptr<DroppedBuffers> home_;
  std::list<void*> held_;  // one address, in the node that DroppedBuffers takes over
  size_t n_bytes_ = 0;
};

}  // namespace csrm

#endif  // CSRM_SRC_DEVICE_MEMORY_H_
