// A "device" whose memory is the host's, for tests: what runs on a GPU runs here, in order, and is
// counted. Not a simulation of a GPU: copies are done at once, and nothing is ever asynchronous.
#ifndef CSRM_TESTS_HOST_MEMORY_H_
#define CSRM_TESTS_HOST_MEMORY_H_

#include <cstdlib>
#include <cstring>
#include <set>

#include "device_memory.h"

namespace csrm_test {

class HostMemory final : public csrm::DeviceMemory {
 public:
  ~HostMemory() override = default;

  csrm::Device device() const override { return csrm::Device::kCuda; }
  const char* engine_name() const override { return "Cpu"; }

  csrm::Status enter() override { return csrm::Status::success(); }
  csrm::Result<void*> allocate(size_t n_bytes) override {
    if (n_bytes_left < n_bytes) return {csrm::Code::kEngineFailed, "out of memory"};
    n_bytes_left -= n_bytes;
    void* memory = nullptr;
    if (::posix_memalign(&memory, 256, n_bytes) != 0) return {csrm::Code::kInternal, "memalign"};
    std::memset(memory, 0x7f, n_bytes);  // what is not written is seen
    held.insert(memory);
    return memory;
  }
  void free(void* memory) noexcept override {
    if (held.erase(memory) == 1) std::free(memory);
  }
  csrm::Result<void*> allocate_host(size_t n_bytes) override { return allocate(n_bytes); }
  void free_host(void* memory) noexcept override { free(memory); }
  csrm::Status upload(void* to, const void* from, size_t n_bytes) override {
    ++n_uploads;
    return move(to, from, n_bytes);
  }
  csrm::Status download(void* to, const void* from, size_t n_bytes) override {
    return move(to, from, n_bytes);
  }
  csrm::Status copy(void* to, const void* from, size_t n_bytes) override {
    ++n_copies;
    return move(to, from, n_bytes);
  }
  csrm::Status wait() override {
    ++n_waits;
    return csrm::Status::success();
  }

  int n_uploads = 0, n_copies = 0, n_waits = 0;
  size_t n_bytes_left = size_t{1} << 40;
  std::set<void*> held;  // not yet freed

 private:
  static csrm::Status move(void* to, const void* from, size_t n_bytes) {
    if (n_bytes > 0) std::memcpy(to, from, n_bytes);
    return csrm::Status::success();
  }
};

}  // namespace csrm_test

#endif  // CSRM_TESTS_HOST_MEMORY_H_
