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
  prefix->key.assign(n_tokens * 2, static_cast<unsigned char>(id));
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
  CHECK(held != nullptr && held->key[3] == 5);
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
        } else if (found->key[0] != static_cast<unsigned char>(id)) {
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

// A run of `n_blocks` blocks of one token each, the last with id `last`.
std::shared_ptr<csrm::Prefix> run_of(size_t n_blocks, int32_t last) {
  auto run = std::make_shared<csrm::Prefix>();
  for (size_t b = 0; b < n_blocks; ++b) {
    run->tokens.append({{b + 1 == n_blocks ? last : 0}, 1, b, 1, false});
  }
  run->n_tokens = n_blocks;
  run->key.assign(n_blocks, 0);
  run->value = run->key;
  return run;
}

std::vector<CacheKey> keys_of(size_t n_blocks, uint8_t last) {
  std::vector<CacheKey> keys;
  for (size_t b = 1; b < n_blocks; ++b) keys.push_back(key_of(static_cast<uint8_t>(100 + b)));
  keys.push_back(key_of(last));
  return keys;
}

void test_prefix_cache_run_serves_its_shorter_runs() {
  PrefixCache cache(20);
  cache.insert_run(keys_of(4, 7), run_of(4, 7));
  const csrm::FoundRun found = cache.find_run(keys_of(5, 8), run_of(5, 8)->tokens);
  CHECK(found.prefix != nullptr && found.n_blocks == 3 && found.prefix->n_tokens == 4);
  // A collision: the same keys over other ids.
  CHECK(cache.find_run(keys_of(1, 101), run_of(1, 8)->tokens).prefix == nullptr);
  CHECK(cache.stats().n_hits == 1 && cache.stats().n_misses == 1);
  CHECK(cache.check_integrity().ok());
}

void test_prefix_cache_longer_run_takes_the_place_of_the_shorter() {
  PrefixCache cache(20);
  cache.insert_run(keys_of(3, 103), run_of(3, 0));
  cache.insert_run(keys_of(5, 7), run_of(5, 7));
  CHECK(cache.stats().n_entries == 1 && cache.stats().n_tokens == 5);
  cache.insert_run(keys_of(5, 8), run_of(5, 8));  // a branch: the first keeps its own ending
  CHECK(cache.stats().n_entries == 2 && cache.stats().n_tokens == 10);
  CHECK(cache.find_run(keys_of(5, 7), run_of(5, 7)->tokens).n_blocks == 5);
  CHECK(cache.find_run(keys_of(5, 8), run_of(5, 8)->tokens).n_blocks == 5);
  CHECK(cache.check_integrity().ok());
  cache.insert(key_of(1), prefix_of(1, 12));  // evicts the branch used longest ago
  CHECK(cache.find_run(keys_of(5, 7), run_of(5, 7)->tokens).n_blocks == 4);
  CHECK(cache.find_run(keys_of(5, 8), run_of(5, 8)->tokens).n_blocks == 5);
  CHECK(cache.stats().n_evictions == 1 && cache.check_integrity().ok());
}

void test_prefix_cache_run_is_taken_only_by_its_single_user() {
  PrefixCache cache(20);
  cache.insert_run(keys_of(3, 7), run_of(3, 7));
  auto held = cache.find_run(keys_of(3, 7), run_of(3, 7)->tokens).prefix;
  auto other = held;
  CHECK(cache.take_run(key_of(7), &held) == nullptr && held != nullptr);
  other.reset();
  CHECK(cache.take_run(key_of(99), &held) == nullptr && held != nullptr);
  const std::shared_ptr<csrm::Prefix> taken = cache.take_run(key_of(7), &held);
  CHECK(taken != nullptr && taken.use_count() == 1 && held == nullptr);
  CHECK(cache.stats().n_entries == 0 && cache.stats().n_tokens == 0);
  CHECK(cache.check_integrity().ok());
}

void test_prefix_cache_runs_taken_by_many_threads_stay_whole() {
  PrefixCache cache(100);
  const auto keys = keys_of(3, 7);
  const PrefixTokens tokens = run_of(3, 7)->tokens;
  std::atomic<int> n_wrong{0}, n_taken{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 3000; ++i) {
        std::shared_ptr<const Prefix> held = cache.find_run(keys, tokens).prefix;
        if (held == nullptr) {
          cache.insert_run(keys, run_of(3, 7));
          continue;
        }
        for (const unsigned char x : held->key) n_wrong += x != held->key[0];
        if (i % 3 != 0) continue;
        const std::shared_ptr<Prefix> own = cache.take_run(keys.back(), &held);
        if (own == nullptr) continue;
        ++n_taken;
        for (unsigned char& x : own->key) ++x;  // nobody may see this half done
        cache.insert_run(keys, own);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(n_wrong == 0 && n_taken > 0);
  CHECK(cache.check_integrity().ok());
}

void test_cache_key_of_longer_run_depends_on_all_before() {
  const csrm::Block block{{1, 2}, 1, 0, 2, false}, other_turn{{1, 2}, 2, 1, 2, false};
  const CacheKey key = csrm::extend_cache_key(key_of(1), block);
  CHECK(key == csrm::extend_cache_key(key_of(1), block));
  CHECK(key != csrm::extend_cache_key(key_of(2), block));
  CHECK(key != csrm::extend_cache_key(key_of(1), other_turn));
  PrefixTokens tokens, other_tokens;
  tokens.append(block);
  other_tokens.append(other_turn);
  CHECK(!(tokens == other_tokens) && !tokens.same_leading(other_tokens, 1));
  CHECK(tokens.same_leading(other_tokens, 0) && !tokens.same_leading(tokens, 2));
}

}  // namespace

int main() {
  test_prefix_cache_run_serves_its_shorter_runs();
  test_prefix_cache_longer_run_takes_the_place_of_the_shorter();
  test_prefix_cache_run_is_taken_only_by_its_single_user();
  test_prefix_cache_runs_taken_by_many_threads_stay_whole();
  test_cache_key_of_longer_run_depends_on_all_before();
  test_prefix_cache_full_evicts_least_recently_used();
  test_prefix_cache_entry_larger_than_cache_is_not_kept();
  test_prefix_cache_collision_is_a_miss();
  test_prefix_cache_entry_in_use_outlives_clear();
  test_prefix_cache_integrity_bad_entry_is_reported();
  test_prefix_cache_many_threads_keep_invariants();
  test_cache_key_every_part_changes_it();
  return csrm_test::summary();
}
