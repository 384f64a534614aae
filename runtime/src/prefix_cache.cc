#include "prefix_cache.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace csrm {
namespace {

Status broken(const char* what) {
  return {Code::kInternal, std::string("prefix cache: ") + what + "; please report it"};
}

void add_ids(const int32_t* ids, size_t n, Sha256* hash) {
  hash->update_u64(n);
  hash->update(ids, n * sizeof(int32_t));
}

}  // namespace

CacheKey make_cache_key(const Sha256Digest& artifact, const std::string& tenant_salt,
                        const PrefixTokens& tokens) {
  Sha256 hash;
  hash.update(artifact.data(), artifact.size());
  hash.update_u64(tenant_salt.size());
  hash.update(tenant_salt.data(), tenant_salt.size());
  hash.update_u64(tokens.ends.size());
  hash.update(tokens.ends.data(), tokens.ends.size() * sizeof(uint32_t));
  add_ids(tokens.segments.data(), tokens.segments.size(), &hash);
  add_ids(tokens.ids.data(), tokens.ids.size(), &hash);
  return hash.finish();
}

CacheKey extend_cache_key(const CacheKey& before, const Block& block) {
  Sha256 hash;
  hash.update(before.data(), before.size());
  add_ids(&block.segment, 1, &hash);
  add_ids(block.ids.data(), block.ids.size(), &hash);
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

FoundRun PrefixCache::find_run(const std::vector<CacheKey>& keys, const PrefixTokens& tokens) {
  const size_t n_before = tokens.ends.size() - keys.size();
  const std::lock_guard<std::mutex> lock(mutex_);
  for (size_t n = keys.size(); n > 0; --n) {
    const auto found = index_.find(keys[n - 1]);
    if (found == index_.end()) continue;
    const Entries::iterator entry = found->second;
    if (!entry->prefix->tokens.same_leading(tokens, n_before + n)) continue;
    ++n_hits_;
    entries_.splice(entries_.begin(), entries_, entry);
    return {entry->prefix, n};
  }
  ++n_misses_;
  return {};
}

void PrefixCache::insert(const CacheKey& key, std::shared_ptr<const Prefix> prefix) {
  insert_run({key}, std::move(prefix));
}

void PrefixCache::insert_run(std::vector<CacheKey> keys, std::shared_ptr<const Prefix> prefix) {
  const size_t n_new = prefix->n_tokens;
  if (n_new > max_tokens_) return;
  Entries added, dropped;
  added.push_back({std::move(keys), std::move(prefix), 0});
  const Entries::iterator entry = added.begin();
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const CacheKey& key : entry->keys) {
    const auto old = index_.find(key);
    if (old == index_.end()) continue;
    const Entries::iterator owner = old->second;
    index_.erase(old);
    if (--owner->n_live == 0) remove_locked(owner, &dropped);
  }
  while (n_tokens_ + n_new > max_tokens_) {
    remove_locked(std::prev(entries_.end()), &dropped);
    ++n_evictions_;
  }
  entries_.splice(entries_.begin(), added);
  n_tokens_ += n_new;
  for (const CacheKey& key : entry->keys) {
    if (index_.emplace(key, entry).second) ++entry->n_live;
  }
}

std::shared_ptr<Prefix> PrefixCache::take_run(const CacheKey& key,
                                              std::shared_ptr<const Prefix>* held) {
  Entries dropped;
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = index_.find(key);
  if (found == index_.end() || found->second->prefix != *held || held->use_count() != 2) {
    return nullptr;
  }
  remove_locked(found->second, &dropped);
  // The entry's own reference goes with `dropped`: that decrement also acquires what earlier users
  // released by theirs, so their reads come before the caller's writes.
  auto taken = std::const_pointer_cast<Prefix>(*held);
  held->reset();
  return taken;
}

bool PrefixCache::owns_locked(const CacheKey& key, Entries::const_iterator entry) const {
  const auto found = index_.find(key);
  return found != index_.end() && Entries::const_iterator(found->second) == entry;
}

void PrefixCache::remove_locked(Entries::iterator entry, Entries* dropped) {
  n_tokens_ -= entry->prefix->n_tokens;
  for (const CacheKey& key : entry->keys) {
    if (owns_locked(key, entry)) index_.erase(key);
  }
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

Status PrefixCache::check_entry_locked(Entries::const_iterator entry) const {
  const auto owns = [&](const CacheKey& key) { return owns_locked(key, entry); };
  const auto n_live =
      static_cast<size_t>(std::count_if(entry->keys.begin(), entry->keys.end(), owns));
  if (n_live == 0) return broken("an entry is not in the map");
  if (n_live != entry->n_live) return broken("an entry's keys are miscounted");
  const Prefix& prefix = *entry->prefix;
  if (prefix.tokens.ids.size() != prefix.n_tokens) return broken("an entry's ids are miscounted");
  if (prefix.key.size() != prefix.value.size()) return broken("key and value differ in size");
  return Status::success();
}

Status PrefixCache::check_integrity() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  size_t sum = 0, n_keys = 0;
  for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
    if (Status bad = check_entry_locked(entry); !bad.ok()) return bad;
    n_keys += entry->n_live;
    sum += entry->prefix->n_tokens;
  }
  if (n_keys != index_.size()) return broken("list and map differ in size");
  if (sum != n_tokens_) return broken("the token count is not the sum over entries");
  if (n_tokens_ > max_tokens_) return broken("the token bound is exceeded");
  return Status::success();
}

}  // namespace csrm
