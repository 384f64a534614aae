// The prefix cache: least recently used, bounded by tokens, shared by all threads of a Scorer.
// Holds three kinds of entry through one class: one rule block, a whole assembled config, and a
// config with the leading turns of a conversation (a run), which has a key after each of its turns'
// blocks: it serves every shorter run of the same turns.
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

// The key of a run that is one block longer than the run (or config) with the key `before`; finding
// every leading run of a conversation so costs one pass over its tokens.
CacheKey extend_cache_key(const CacheKey& before, const Block& block);

// The longest kept run of some turns: `prefix` begins with it and may go on with other turns.
struct FoundRun {
  std::shared_ptr<const Prefix> prefix;  // null if there is none
  size_t n_blocks = 0;                   // of turns in the run
};

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

  // The longest run kept under one of `keys`, which are those of the last keys.size() blocks of
  // `tokens`, in order. Modifies the order of use and counts one hit or one miss; holds the lock
  // for the look-ups and, for each key that is found, one comparison of token ids.
  FoundRun find_run(const std::vector<CacheKey>& keys, const PrefixTokens& tokens);

  // Keeps the run `prefix` under all of `keys`, which are in order and not empty; otherwise as
  // `insert`. Other entries lose these keys, and an entry that has none left is dropped: a longer
  // run takes the place of the shorter one it goes on from. `prefix` was not made as const.
  void insert_run(std::vector<CacheKey> keys, std::shared_ptr<const Prefix> prefix);

  // The run `*held` for the caller alone to change, out of the cache and out of `*held`; null, and
  // nothing is changed, unless the cache's entry and `*held` are the only two that know it. `key`
  // is any key of it. Holds the lock for the bookkeeping.
  std::shared_ptr<Prefix> take_run(const CacheKey& key, std::shared_ptr<const Prefix>* held);

  size_t max_tokens() const { return max_tokens_; }

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
    std::vector<CacheKey> keys;
    std::shared_ptr<const Prefix> prefix;
    size_t n_live = 0;  // keys that the map still gives to this entry; at least 1
  };
  struct KeyHash {
    size_t operator()(const CacheKey& key) const {
      size_t hash = 0;  // any 8 bytes of a SHA-256 are uniform
      std::memcpy(&hash, key.data(), sizeof(hash));
      return hash;
    }
  };
  using Entries = std::list<Entry>;

  bool owns_locked(const CacheKey& key, Entries::const_iterator entry) const;
  Status check_entry_locked(Entries::const_iterator entry) const;

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
