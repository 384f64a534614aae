// The prefix cache: least recently used, bounded by tokens, shared by all threads of a Scorer.
// Holds two kinds of entry through one class: one rule block, and a whole assembled config.
// Not: encoding on a miss (prefix_encoder.h). A hit compares the token ids as well as the key, so
// a collision is a miss and never another config's prefix.
#ifndef CSRM_SRC_PREFIX_CACHE_H_
#define CSRM_SRC_PREFIX_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "csrm/status.h"
#include "prefix.h"
#include "sha256.h"

namespace csrm {

using CacheKey = Sha256Digest;

// SHA-256 of (artifact digest, tenant salt, block ends, token ids), each list with its length in
// front: two different inputs never spell the same bytes.
CacheKey make_cache_key(const Sha256Digest& artifact, const std::string& tenant_salt,
                        const PrefixTokens& tokens);

struct PrefixCacheStats {
  uint64_t n_hits = 0;
  uint64_t n_misses = 0;
  uint64_t n_evictions = 0;
  size_t n_entries = 0;
  size_t n_tokens = 0;
  size_t max_tokens = 0;
};

class PrefixCache {
 public:
  // A cache of at most `max_tokens` tokens; 0 keeps nothing. Modifies nothing else; no lock.
  explicit PrefixCache(size_t max_tokens) : max_tokens_(max_tokens) {}

  // The entry under `key` whose tokens are `tokens`, or null. Modifies the order of use and the hit
  // and miss counts; holds the lock for one look-up and one comparison of token ids. The result
  // stays valid after eviction.
  std::shared_ptr<const Prefix> find(const CacheKey& key, const PrefixTokens& tokens);

  // Keeps `prefix` under `key` as the most recently used entry, replacing an entry with that key
  // and evicting the least recently used ones until the bound holds. A prefix larger than the
  // whole cache is not kept and evicts nothing. Modifies entries and counts; holds the lock for
  // the bookkeeping, while evicted buffers are freed after it is released. `prefix` is not null.
  void insert(const CacheKey& key, std::shared_ptr<const Prefix> prefix);

  // Drops every entry (no eviction is counted); prefixes in use by a running call live on in it.
  // Modifies entries; holds the lock for a swap.
  void clear();

  // A consistent copy of the counts. Modifies nothing; holds the lock for the copy.
  PrefixCacheStats stats() const;

  // The class's invariants: the token count is the sum over entries and within the bound, the list
  // and the map have the same entries, every entry's sizes agree with its tokens. Modifies
  // nothing; holds the lock for one pass over the entries (not over their floats).
  // Errors: Internal, naming the broken invariant.
  Status check_integrity() const;

 private:
  struct Entry {
    CacheKey key;
    std::shared_ptr<const Prefix> prefix;
  };
  struct KeyHash {
    size_t operator()(const CacheKey& key) const {
      size_t hash = 0;  // any 8 bytes of a SHA-256 are uniform
      std::memcpy(&hash, key.data(), sizeof(hash));
      return hash;
    }
  };
  using Entries = std::list<Entry>;

  // Moves the entry out to `dropped`, so that its memory is freed without the lock.
  void remove_locked(Entries::iterator entry, Entries* dropped);

  const size_t max_tokens_;
  mutable std::mutex mutex_;
  Entries entries_;  // most recently used first
  std::unordered_map<CacheKey, Entries::iterator, KeyHash> index_;
  size_t n_tokens_ = 0;
  uint64_t n_hits_ = 0;
  uint64_t n_misses_ = 0;
  uint64_t n_evictions_ = 0;
};

}  // namespace csrm

#endif  // CSRM_SRC_PREFIX_CACHE_H_
