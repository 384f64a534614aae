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

// Both elements of a register, widened.
template <typename T>
void widen(uint32_t pair, float* out) {
  T elements[2];
  static_assert(sizeof(elements) == sizeof(pair));
  std::memcpy(static_cast<void*>(elements), &pair, sizeof(pair));
  for (int i = 0; i < 2; ++i) out[i] = static_cast<float>(elements[i]);
}

struct MmaOperands {
  float a[4][2], b[2][2];
};

template <typename T>
void multiply_add(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  MmaOperands mine;
  for (int i = 0; i < 4; ++i) widen<T>(a[i], mine.a[i]);
  widen<T>(b0, mine.b[0]);
  widen<T>(b1, mine.b[1]);
  const auto all = emulator::exchanged(emulator::Operation::kMultiply, mine);
  const int lane = emulator::current->lane;
  for (int r = 0; r < 4; ++r) {
    const int row = lane / 4 + r / 2 * 8, column = lane % 4 * 2 + r % 2;
    for (int k = 0; k < 16; ++k) {
      const float left = all[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2][k % 2];
      sums[r] += left * all[column * 4 + k % 8 / 2].b[k / 8][k % 2];
    }
  }
}

template <typename T>
uint32_t packed(float low, float high) {
  const T elements[2] = {T(low), T(high)};
  uint32_t pair;
  std::memcpy(&pair, static_cast<const void*>(elements), sizeof(pair));
  return pair;
}

inline float power_of_two(float x) {
  const float result = std::exp2(x);
  return result < 1.17549435e-38f ? 0.0f : result;
}

}  // namespace csrm::kernels::cuda

#endif  // CSRM_KERNELS_CUDA_TENSOR_CORE_CUH_
