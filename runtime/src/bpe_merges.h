// The merges of a BPE model: a sequence of token ids -> fewer ids, lowest rank first, leftmost
// first among equals. Not: what the tokens spell (bpe_words.h) and not cutting a text
// (pre_tokens.h).
#ifndef CSRM_SRC_BPE_MERGES_H_
#define CSRM_SRC_BPE_MERGES_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace csrm {

// The pair `left`, `right` becomes `merged`.
struct BpeMerge {
  int32_t left, right, merged;
};

// Immutable after the last add, so thread-safe then.
class BpeMerges {
 public:
  // Makes room for `n_merges`, which add must not exceed.
  explicit BpeMerges(size_t n_merges);

  // Adds the merge of the next rank. False if the pair has one already.
  bool add(const BpeMerge& merge);

  // Merges what stands in `ids` from `first` on. Time: O(n log n).
  void merge_tail(size_t first, std::vector<int32_t>* ids) const;

 private:
  static constexpr uint32_t kNoRank = UINT32_MAX;
  struct Slot {
    int32_t left, right, merged;
    uint32_t rank;  // kNoRank: the slot is empty
  };
  class LongWord;

  size_t slot_of(int32_t left, int32_t right) const;
  const Slot& find(int32_t left, int32_t right) const { return slots_[slot_of(left, right)]; }
  size_t merge_short(int32_t* ids, size_t n) const;

  std::vector<Slot> slots_;  // open addressing; a power of two, at least twice the merges
  unsigned shift_;           // of a 64-bit hash to an index of slots_
  uint32_t n_merges_ = 0;
};

}  // namespace csrm

#endif  // CSRM_SRC_BPE_MERGES_H_
