// SHA-256 (FIPS 180-4): digests of artifact files and keys of the prefix cache.
// Not: a general crypto library. Uses the x86 SHA extensions when the processor has them, decided
// once at run time; every other machine runs the portable code, which gives the same bytes.
#ifndef CSRM_SRC_SHA256_H_
#define CSRM_SRC_SHA256_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace csrm {

using Sha256Digest = std::array<uint8_t, 32>;

// Which code computes the digest; kPortable exists so that a test can compare the two.
enum class Sha256Path { kBest, kPortable };

// An incremental hash. One thread at a time; `finish` may be called once.
class Sha256 {
 public:
  explicit Sha256(Sha256Path path = Sha256Path::kBest) noexcept;

  void update(const void* data, size_t size) noexcept;
  // Adds `value` as 8 little-endian bytes, so that lists of lengths hash the same everywhere.
  void update_u64(uint64_t value) noexcept;
  Sha256Digest finish() noexcept;

 private:
  using Compress = void (*)(uint32_t* state, const uint8_t* blocks, size_t n_blocks);

  Compress compress_;
  uint32_t state_[8];
  uint8_t pending_[64];
  size_t n_pending_ = 0;
  uint64_t n_bytes_ = 0;
};

// The digest as 64 lower-case hexadecimal digits.
std::string to_hex(const Sha256Digest& digest);

}  // namespace csrm

#endif  // CSRM_SRC_SHA256_H_
