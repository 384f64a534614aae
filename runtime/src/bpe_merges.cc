// The merges of bpe_merges.h. Words of up to kShortWord ids, which is nearly all of them, are
// scanned for their best pair after every merge; longer ones keep a heap of pairs over a linked
// list, so that a word of a million letters is not quadratic.
#include "bpe_merges.h"

#include <algorithm>
#include <functional>
#include <queue>
#include <utility>

namespace csrm {
namespace {

constexpr size_t kShortWord = 32;

}  // namespace

BpeMerges::BpeMerges(size_t n_merges) : shift_(63) {
  size_t size = 2;
  while (size < 2 * n_merges) {
    size *= 2;
    --shift_;
  }
  slots_.assign(size, {0, 0, 0, kNoRank});
}

size_t BpeMerges::slot_of(int32_t left, int32_t right) const {
  const uint64_t pair =
      static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  size_t at = static_cast<size_t>((pair * 0x9E3779B97F4A7C15u) >> shift_);
  while (slots_[at].rank != kNoRank && (slots_[at].left != left || slots_[at].right != right)) {
    at = (at + 1) & (slots_.size() - 1);
  }
  return at;
}

bool BpeMerges::add(const BpeMerge& merge) {
  Slot& slot = slots_[slot_of(merge.left, merge.right)];
  if (slot.rank != kNoRank) return false;
  slot = {merge.left, merge.right, merge.merged, n_merges_++};
  return true;
}

// Merges in place; returns how many ids remain. `n` is 2 to kShortWord.
size_t BpeMerges::merge_short(int32_t* ids, size_t n) const {
  uint32_t ranks[kShortWord];  // of the pair that begins at each id; kNoRank for the last
  int32_t merged[kShortWord];
  const auto look_up = [&](size_t at) {
    const Slot& slot = find(ids[at], ids[at + 1]);
    ranks[at] = slot.rank;
    merged[at] = slot.merged;
  };
  for (size_t i = 0; i + 1 < n; ++i) look_up(i);
  ranks[n - 1] = kNoRank;
  while (n > 1) {
    const size_t best = static_cast<size_t>(std::min_element(ranks, ranks + n - 1) - ranks);
    if (ranks[best] == kNoRank) break;
    ids[best] = merged[best];
    std::copy(ids + best + 2, ids + n, ids + best + 1);
    std::copy(ranks + best + 2, ranks + n, ranks + best + 1);
    std::copy(merged + best + 2, merged + n, merged + best + 1);
    --n;
    if (best + 1 < n) {
      look_up(best);
    } else {
      ranks[best] = kNoRank;
    }
    if (best > 0) look_up(best - 1);
  }
  return n;
}

// A word as a linked list. An entry of the heap is out of date when the pair at its place is gone
// or another one: ranks name pairs, and no pair comes back once it was merged.
class BpeMerges::LongWord {
 public:
  LongWord(const BpeMerges& merges, int32_t* ids, size_t n) : merges_(merges), ids_(ids), n_(n) {
    nodes_.resize(n);
    for (size_t i = 0; i < n; ++i) nodes_[i] = {i - 1, i + 1, kNoRank};
    for (size_t i = 0; i + 1 < n; ++i) push(i);
  }

  // Returns how many ids remain.
  size_t merge() {
    while (!heap_.empty()) {
      const auto [rank, at] = heap_.top();
      heap_.pop();
      if (nodes_[at].rank != rank) continue;
      merge_at(at);
    }
    size_t kept = 0;
    for (size_t at = 0; at < n_; at = nodes_[at].next) ids_[kept++] = ids_[at];
    return kept;
  }

 private:
  struct Node {
    size_t previous, next;  // of the first, SIZE_MAX; of the last, n_
    uint32_t rank;          // of the pair that begins here
  };
  using Entry = std::pair<uint32_t, size_t>;  // rank, place

  void push(size_t at) {
    const size_t next = nodes_[at].next;
    nodes_[at].rank = next == n_ ? kNoRank : merges_.find(ids_[at], ids_[next]).rank;
    if (nodes_[at].rank != kNoRank) heap_.emplace(nodes_[at].rank, at);
  }

  void merge_at(size_t at) {
    const size_t gone = nodes_[at].next;
    ids_[at] = merges_.find(ids_[at], ids_[gone]).merged;
    nodes_[gone].rank = kNoRank;
    nodes_[at].next = nodes_[gone].next;
    if (nodes_[at].next != n_) nodes_[nodes_[at].next].previous = at;
    push(at);
    if (at != 0) push(nodes_[at].previous);
  }

  const BpeMerges& merges_;
  int32_t* const ids_;
  const size_t n_;
  std::vector<Node> nodes_;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<Entry>> heap_;
};

void BpeMerges::merge_tail(size_t first, std::vector<int32_t>* ids) const {
  const size_t n = ids->size() - first;
  if (n < 2) return;
  int32_t* const word = ids->data() + first;
  const size_t kept = n <= kShortWord ? merge_short(word, n) : LongWord(*this, word, n).merge();
  ids->resize(first + kept);
}

}  // namespace csrm
