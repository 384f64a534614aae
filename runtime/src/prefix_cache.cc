#include "prefix_cache.h"

#include <iterator>
#include <utility>

namespace csrm {

CacheKey make_cache_key(const Sha256Digest& artifact, const std::string& tenant_salt,
                        const PrefixTokens& tokens) {
  Sha256 hash;
  hash.update(artifact.data(), artifact.size());
  hash.update_u64(tenant_salt.size());
  hash.update(tenant_salt.data(), tenant_salt.size());
  hash.update_u64(tokens.ends.size());
  hash.update(tokens.ends.data(), tokens.ends.size() * sizeof(uint32_t));
  hash.update_u64(tokens.ids.size());
  hash.update(tokens.ids.data(), tokens.ids.size() * sizeof(int32_t));
  return hash.finish();
}

std::shared_ptr<const Prefix> PrefixCache::find(const CacheKey& key, const PrefixTokens& tokens) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = index_.find(key);
  if (found == index_.end() || !(found->second->prefix->tokens == tokens)) {
    ++n_misses_;
    return nullptr;
  }
  ++n_hits_;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->prefix;
}

void PrefixCache::insert(const CacheKey& key, std::shared_ptr<const Prefix> prefix) {
  const size_t n_new = prefix->n_tokens;
  if (n_new > max_tokens_) return;
  Entries added, dropped;
  added.push_back({key, std::move(prefix)});
  const std::lock_guard<std::mutex> lock(mutex_);
  if (const auto old = index_.find(key); old != index_.end()) remove_locked(old->second, &dropped);
  while (n_tokens_ + n_new > max_tokens_) {
    remove_locked(std::prev(entries_.end()), &dropped);
    ++n_evictions_;
  }
  index_.emplace(key, added.begin());
  entries_.splice(entries_.begin(), added);
  n_tokens_ += n_new;
}

void PrefixCache::remove_locked(Entries::iterator entry, Entries* dropped) {
  n_tokens_ -= entry->prefix->n_tokens;
  index_.erase(entry->key);
  dropped->splice(dropped->begin(), entries_, entry);
}

void PrefixCache::clear() {
  Entries dropped;
  const std::lock_guard<std::mutex> lock(mutex_);
  index_.clear();
  dropped.swap(entries_);
  n_tokens_ = 0;
}

PrefixCacheStats PrefixCache::stats() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return {n_hits_, n_misses_, n_evictions_, entries_.size(), n_tokens_, max_tokens_};
}

Status PrefixCache::check_integrity() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto broken = [](const char* what) {
    return Status{Code::kInternal, std::string("prefix cache: ") + what + "; please report it"};
  };
  if (entries_.size() != index_.size()) return broken("list and map differ in size");
  size_t sum = 0;
  for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
    const auto found = index_.find(entry->key);
    if (found == index_.end()) return broken("an entry is not in the map");
    if (Entries::const_iterator(found->second) != entry) return broken("a key has two entries");
    const Prefix& prefix = *entry->prefix;
    if (prefix.tokens.ids.size() != prefix.n_tokens) return broken("an entry's ids are miscounted");
    if (prefix.key.size() != prefix.value.size()) return broken("key and value differ in size");
    sum += prefix.n_tokens;
  }
  if (sum != n_tokens_) return broken("the token count is not the sum over entries");
  if (n_tokens_ > max_tokens_) return broken("the token bound is exceeded");
  return Status::success();
}

}  // namespace csrm
