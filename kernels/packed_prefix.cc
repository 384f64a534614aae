// Memory of a PackedPrefix and who may write it; prefix_attention_amx.cc fills and reads it.
#include "packed_prefix.h"

#include <new>

namespace csrm::kernels {

bool PackedPrefix::begin(int64_t n_heads, int64_t n_tokens, int64_t head_dim) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!was_read_) {
    was_read_ = true;
    return false;
  }
  if (words_ != nullptr) return true;
  n_heads_ = n_heads;
  n_chunks_ = n_tokens / kChunk;
  chunk_words_ = 2 * kChunk * head_dim;
  const auto n = static_cast<size_t>(n_heads);
  states_.reset(new (std::nothrow) std::atomic<uint8_t>[n]);
  not_finite_.reset(new (std::nothrow) uint8_t[n * static_cast<size_t>(n_chunks_) + 1]);
  if (states_ == nullptr || not_finite_ == nullptr) return false;
  for (size_t i = 0; i < n; ++i) states_[i].store(kEmpty, std::memory_order_relaxed);
  words_ = aligned_pages<uint16_t>(n * static_cast<size_t>(n_chunks_ * chunk_words_) + 1);
  return words_ != nullptr;
}

PackedPrefix::Use PackedPrefix::use(int64_t head) noexcept {
  uint8_t state = states_[head].load(std::memory_order_acquire);
  if (state == kFilled) return Use::kRead;
  const bool is_ours = state == kEmpty && states_[head].compare_exchange_strong(
                                              state, kBeingFilled, std::memory_order_acquire);
  return is_ours ? Use::kFill : state == kFilled ? Use::kRead : Use::kNone;
}

PackedPrefix::Head PackedPrefix::head(int64_t head) const noexcept {
  return {words_.get() + head * n_chunks_ * chunk_words_, not_finite_.get() + head * n_chunks_};
}

size_t PackedPrefix::n_bytes() const noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (words_ == nullptr) return 0;
  return static_cast<size_t>(n_heads_ * n_chunks_ * chunk_words_) * sizeof(uint16_t);
}

}  // namespace csrm::kernels
