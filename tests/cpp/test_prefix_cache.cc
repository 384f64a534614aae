// The prefix cache: bounds, order of eviction, collisions (the key is the caller's, so a test can
// make two prefixes collide), lifetime after eviction, threads, and the key's construction.
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "prefix_cache.h"

namespace {

using csrm::CacheKey;
using csrm::Prefix;
using csrm::PrefixCache;
using csrm::PrefixTokens;

CacheKey key_of(uint8_t n) {
  CacheKey key{};
  key[0] = n;
  return key;
}

std::shared_ptr<const Prefix> prefix_of(int32_t id, size_t n_tokens) {
  auto prefix = std::make_shared<Prefix>();
  prefix->tokens.ids.assign(n_tokens, id);
  prefix->tokens.ends = {static_cast<uint32_t>(n_tokens)};
  prefix->n_tokens = n_tokens;
  prefix->key.assign(n_tokens * 2, static_cast<float>(id));
  prefix->value = prefix->key;
  return prefix;
}

void test_prefix_cache_full_evicts_least_recently_used() {
  PrefixCache cache(10);
  for (uint8_t i = 0; i < 3; ++i) cache.insert(key_of(i), prefix_of(i, 3));
  CHECK(cache.find(key_of(0), prefix_of(0, 3)->tokens) != nullptr);
  cache.insert(key_of(3), prefix_of(3, 4));
  CHECK(cache.find(key_of(0), prefix_of(0, 3)->tokens) != nullptr);
  CHECK(cache.find(key_of(1), prefix_of(1, 3)->tokens) == nullptr);
  CHECK(cache.find(key_of(2), prefix_of(2, 3)->tokens) != nullptr);
  CHECK(cache.find(key_of(3), prefix_of(3, 4)->tokens) != nullptr);
  const csrm::PrefixCacheStats stats = cache.stats();
  CHECK(stats.n_hits == 4 && stats.n_misses == 1 && stats.n_evictions == 1);
  CHECK(stats.n_entries == 3 && stats.n_tokens == 10 && stats.max_tokens == 10);
  CHECK(cache.check_integrity().ok());
}

void test_prefix_cache_entry_larger_than_cache_is_not_kept() {
  PrefixCache cache(10);
  cache.insert(key_of(0), prefix_of(0, 10));
  cache.insert(key_of(1), prefix_of(1, 11));
  CHECK(cache.find(key_of(1), prefix_of(1, 11)->tokens) == nullptr);
  CHECK(cache.find(key_of(0), prefix_of(0, 10)->tokens) != nullptr);
  CHECK(cache.stats().n_evictions == 0);
  PrefixCache none(0);
  none.insert(key_of(0), prefix_of(0, 1));
  CHECK(none.stats().n_entries == 0);
  CHECK(none.check_integrity().ok());
}

void test_prefix_cache_collision_is_a_miss() {
  PrefixCache cache(10);
  cache.insert(key_of(7), prefix_of(1, 3));
  CHECK(cache.find(key_of(7), prefix_of(2, 3)->tokens) == nullptr);
  PrefixTokens cut = prefix_of(1, 3)->tokens;
  cut.ends = {1, 3};
  CHECK(cache.find(key_of(7), cut) == nullptr);
  cache.insert(key_of(7), prefix_of(2, 4));
  CHECK(cache.find(key_of(7), prefix_of(1, 3)->tokens) == nullptr);
  CHECK(cache.find(key_of(7), prefix_of(2, 4)->tokens) != nullptr);
  CHECK(cache.stats().n_entries == 1 && cache.stats().n_tokens == 4);
  CHECK(cache.check_integrity().ok());
}

void test_prefix_cache_entry_in_use_outlives_clear() {
  PrefixCache cache(10);
  cache.insert(key_of(1), prefix_of(5, 2));
  const std::shared_ptr<const Prefix> held = cache.find(key_of(1), prefix_of(5, 2)->tokens);
  cache.clear();
  CHECK(cache.stats().n_entries == 0 && cache.stats().n_tokens == 0);
  CHECK(cache.check_integrity().ok());
  CHECK(held != nullptr && held->key[3] == 5.0f);
}

void test_prefix_cache_integrity_bad_entry_is_reported() {
  PrefixCache cache(10);
  auto bad = std::make_shared<Prefix>(*prefix_of(1, 3));
  bad->tokens.ids.pop_back();
  cache.insert(key_of(1), bad);
  CHECK(cache.check_integrity().code == csrm::Code::kInternal);
}

void test_prefix_cache_many_threads_keep_invariants() {
  PrefixCache cache(50);
  std::atomic<int> n_wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&cache, &n_wrong, t] {
      for (int i = 0; i < 5000; ++i) {
        const int id = (i * 7 + t * 13) % 20;
        const auto wanted = prefix_of(id, 1 + static_cast<size_t>(id));
        const CacheKey key = key_of(static_cast<uint8_t>(id / 2));
        const auto found = cache.find(key, wanted->tokens);
        if (found == nullptr) {
          cache.insert(key, wanted);
        } else if (found->key[0] != static_cast<float>(id)) {
          ++n_wrong;
        }
        if (i % 500 == 0 && !cache.check_integrity().ok()) ++n_wrong;
        if (i % 1777 == 0) cache.clear();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(n_wrong == 0);
  CHECK(cache.check_integrity().ok());
  const csrm::PrefixCacheStats stats = cache.stats();
  CHECK(stats.n_hits + stats.n_misses == 4 * 5000);
  CHECK(stats.n_hits > 0 && stats.n_evictions > 0);
}

void test_cache_key_every_part_changes_it() {
  const csrm::Sha256Digest artifact{}, other_artifact{1};
  const PrefixTokens tokens{{1, 2, 3}, {3}};
  const CacheKey key = csrm::make_cache_key(artifact, "", tokens);
  CHECK(key == csrm::make_cache_key(artifact, "", PrefixTokens{{1, 2, 3}, {3}}));
  CHECK(key != csrm::make_cache_key(other_artifact, "", tokens));
  CHECK(key != csrm::make_cache_key(artifact, "tenant", tokens));
  CHECK(key != csrm::make_cache_key(artifact, "", PrefixTokens{{1, 2, 3}, {1, 3}}));
  CHECK(key != csrm::make_cache_key(artifact, "", PrefixTokens{{1, 2, 4}, {3}}));
  CHECK(csrm::make_cache_key(artifact, std::string("a\0", 2), tokens) !=
        csrm::make_cache_key(artifact, "a", tokens));
}

}  // namespace

int main() {
  test_prefix_cache_full_evicts_least_recently_used();
  test_prefix_cache_entry_larger_than_cache_is_not_kept();
  test_prefix_cache_collision_is_a_miss();
  test_prefix_cache_entry_in_use_outlives_clear();
  test_prefix_cache_integrity_bad_entry_is_reported();
  test_prefix_cache_many_threads_keep_invariants();
  test_cache_key_every_part_changes_it();
  return csrm_test::summary();
}
