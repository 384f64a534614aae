// PackedPrefix: a prefix's keys and values as attention with products of bfloat16 reads them, kept
// beside the prefix, so that what thousands of conversations read is packed once. Holds whole
// chunks of 32 keys; what is behind them shares a chunk with a row's own keys. Not: a prefix (the
// caller's floats, which are the truth: what is here is a copy with other digits dropped).
#ifndef CSRM_KERNELS_PACKED_PREFIX_H_
#define CSRM_KERNELS_PACKED_PREFIX_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>

#include "aligned.h"

namespace csrm::kernels {

// Thread-safe: calls that read one prefix at the same time share it. It belongs to one prefix for
// good: whoever changes that makes a new one.
class PackedPrefix {
 public:
  // Keys of a chunk.
  static constexpr int64_t kChunk = 32;

  // One head of one layer: chunks [keys, values] of kChunk * head_dim words each.
  struct Head {
    uint16_t* words;
    uint8_t* not_finite;  // [chunks] the first key of each that or whose value is not, or kChunk
  };
  // What a task may do with a head: nothing, for another fills it; fill it; read it.
  enum class Use : uint8_t { kNone, kFill, kRead };

  // Counts a call that reads the prefix of n_heads heads (over all layers) of n_tokens tokens, the
  // same numbers in each call. False if this one has to do without: the first, after which nobody
  // may ever come again, and one that finds no memory.
  bool begin(int64_t n_heads, int64_t n_tokens, int64_t head_dim) noexcept;

  // In a call for which begin() was true, by each task. One that fills a head says so when all its
  // chunks are there.
  Use use(int64_t head) noexcept;
  void end_fill(int64_t head) noexcept { states_[head].store(kFilled, std::memory_order_release); }
  Head head(int64_t head) const noexcept;

  // Bytes it holds.
  size_t n_bytes() const noexcept;

 private:
  enum State : uint8_t { kEmpty, kBeingFilled, kFilled };

  mutable std::mutex mutex_;  // over what begin() makes
  bool was_read_ = false;
  Aligned<uint16_t> words_;
  std::unique_ptr<uint8_t[]> not_finite_;
  std::unique_ptr<std::atomic<uint8_t>[]> states_;
  int64_t n_heads_ = 0, n_chunks_ = 0, chunk_words_ = 0;
};

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_PACKED_PREFIX_H_
