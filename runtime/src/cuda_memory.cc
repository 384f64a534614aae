// One call of the driver for each function; see cuda_memory.h.
#include "cuda_memory.h"

namespace csrm {
namespace {

constexpr unsigned kNonBlocking = 1;        // does not wait for the device's default stream
constexpr unsigned kPortableAndMapped = 3;  // host memory for every context, at one address

CudaAddress address_of(const void* memory) { return reinterpret_cast<CudaAddress>(memory); }

}  // namespace

Result<std::shared_ptr<CudaMemory>> CudaMemory::open(const CudaDriver& driver, CudaDevice device) {
  std::shared_ptr<CudaMemory> made(new CudaMemory(driver, device));
  Status status = made->check(driver.retain_context(&made->context_, device), "the GPU's context");
  if (status.ok()) status = made->enter();
  if (status.ok())
    status = made->check(driver.create_stream(&made->stream_, kNonBlocking), "stream");
  if (!status.ok()) return status;
  return made;
}

CudaMemory::~CudaMemory() {
  if (context_ == nullptr) return;
  if (stream_ != nullptr && enter().ok()) driver_.destroy_stream(stream_);
  driver_.release_context(device_);
}

Status CudaMemory::enter() { return check(driver_.set_context(context_), "the GPU's context"); }

Result<void*> CudaMemory::allocate(size_t n_bytes) {
  CudaAddress address = 0;
  Status status = check(driver_.allocate(&address, n_bytes), "memory of the GPU");
  if (!status.ok()) return status;
  return reinterpret_cast<void*>(address);
}

void CudaMemory::free(void* memory) noexcept { driver_.free(address_of(memory)); }

Result<void*> CudaMemory::allocate_host(size_t n_bytes) {
  void* memory = nullptr;
  Status status =
      check(driver_.allocate_host(&memory, n_bytes, kPortableAndMapped), "pinned memory");
  if (!status.ok()) return status;
  return memory;
}

void CudaMemory::free_host(void* memory) noexcept { driver_.free_host(memory); }

Status CudaMemory::upload(void* to, const void* from, size_t n_bytes) {
  if (n_bytes == 0) return Status::success();
  return check(driver_.upload(address_of(to), from, n_bytes, stream_), "a copy to the GPU");
}

Status CudaMemory::download(void* to, const void* from, size_t n_bytes) {
  if (n_bytes == 0) return Status::success();
  return check(driver_.download(to, address_of(from), n_bytes, stream_), "a copy from the GPU");
}

Status CudaMemory::copy(void* to, const void* from, size_t n_bytes) {
  if (n_bytes == 0) return Status::success();
  return check(driver_.copy(address_of(to), address_of(from), n_bytes, stream_),
               "a copy within the GPU");
}

Status CudaMemory::wait() { return check(driver_.synchronise(stream_), "the GPU's work"); }

}  // namespace csrm
