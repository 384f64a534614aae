// The emulator's kernels/cuda/tensor_core.cuh, found before the real one: the same functions, by
// the PTX ISA's tables of which lane holds which element. The real file says what each does.
#ifndef CSRM_KERNELS_CUDA_TENSOR_CORE_CUH_
#define CSRM_KERNELS_CUDA_TENSOR_CORE_CUH_

#include "emulator.h"

namespace csrm::kernels::cuda {

// Offsets stand for addresses.
inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(static_cast<const unsigned char*>(pointer) -
                               emulator::shared_memory.data());
}

inline unsigned char* shared_bytes(uint32_t address) {
  if (address % 16 != 0 || address + 16 > emulator::shared_memory.size()) {
    emulator::fail("an address outside shared memory or not a multiple of 16");
  }
  return emulator::shared_memory.data() + address;
}

inline void copy_16_bytes(uint32_t to, const void* from, bool is_read) {
  shared_bytes(to);
  if (reinterpret_cast<uintptr_t>(from) % 16 != 0) emulator::fail("a copy from an odd address");
  emulator::current->copies.back().push_back({to, from, is_read});
}

inline void commit_copies() { emulator::current->copies.emplace_back(); }

// Copies are done no earlier than they must be.
template <int kLater>
void wait_for_copies() {
  auto& groups = emulator::current->copies;
  while (groups.size() > kLater + 1) {
    for (const emulator::Copy& copy : groups.front()) {
      unsigned char* to = shared_bytes(copy.to);
      copy.is_read ? std::memcpy(to, copy.from, 16) : std::memset(to, 0, 16);
    }
    groups.erase(groups.begin());
  }
}

// Element (row, column) of the matrix whose rows `addresses` begin with.
inline uint32_t element_at(const uint32_t* addresses, int row, int column) {
  uint16_t element;
  std::memcpy(&element, shared_bytes(addresses[row]) + column * 2, 2);
  return element;
}

inline void load_matrices(uint32_t (&out)[4], uint32_t address) {
  const auto all = emulator::exchanged(emulator::Operation::kLoad, address);
  const int row = emulator::current->lane / 4, column = emulator::current->lane % 4 * 2;
  for (int m = 0; m < 4; ++m) {
    const uint32_t* rows = all.data() + m * 8;
    out[m] = element_at(rows, row, column) | element_at(rows, row, column + 1) << 16;
  }
}

inline void load_transposed(uint32_t (&out)[4], uint32_t address) {
  const auto all = emulator::exchanged(emulator::Operation::kLoad, address);
  const int column = emulator::current->lane / 4, row = emulator::current->lane % 4 * 2;
  for (int m = 0; m < 4; ++m) {
    const uint32_t* rows = all.data() + m * 8;
    out[m] = element_at(rows, row, column) | element_at(rows, row + 1, column) << 16;
  }
}

template <typename T>
float half_of(uint32_t pair, int which) {
  const auto bits = static_cast<uint16_t>(pair >> 16 * which);
  T element;
  std::memcpy(&element, &bits, sizeof(bits));
  return static_cast<float>(element);
}

struct MmaOperands {
  uint32_t a[4], b[2];
};

template <typename T>
void multiply_add(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const auto all = emulator::exchanged(emulator::Operation::kMultiply,
                                       MmaOperands{{a[0], a[1], a[2], a[3]}, {b0, b1}});
  const int lane = emulator::current->lane;
  for (int r = 0; r < 4; ++r) {
    const int row = lane / 4 + r / 2 * 8, column = lane % 4 * 2 + r % 2;
    float sum = sums[r];
    for (int k = 0; k < 16; ++k) {
      const uint32_t left = all[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2];
      const uint32_t right = all[column * 4 + k % 8 / 2].b[k / 8];
      sum += half_of<T>(left, k % 2) * half_of<T>(right, k % 2);
    }
    sums[r] = sum;
  }
}

template <typename T>
uint32_t packed(float low, float high) {
  uint16_t bits[2];
  const T elements[2] = {T(low), T(high)};
  std::memcpy(bits, elements, sizeof(bits));
  return bits[0] | static_cast<uint32_t>(bits[1]) << 16;
}

inline float power_of_two(float x) {
  const float result = std::exp2(x);
  return result < 1.17549435e-38f ? 0.0f : result;
}

}  // namespace csrm::kernels::cuda

#endif  // CSRM_KERNELS_CUDA_TENSOR_CORE_CUH_
