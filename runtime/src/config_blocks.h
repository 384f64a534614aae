// Rules -> rendered blocks, their tokens and the cache key of the whole prefix, kept for recent
// configs: tokenising 256 tokens costs more than looking them up.
// Not: encoding (prefix_encoder.h).
#ifndef CSRM_SRC_CONFIG_BLOCKS_H_
#define CSRM_SRC_CONFIG_BLOCKS_H_

#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "csrm/status.h"
#include "csrm/types.h"
#include "layout.h"
#include "prefix_cache.h"
#include "tokenizer.h"

namespace csrm {

// One rendered config. Immutable once made, shared by calls. In the causal layout a config is one
// sequence and no rule has blocks of its own: tokens, keys and rule_begin are empty.
struct ConfigBlocks {
  std::vector<Block> blocks;         // of all rules, in order
  std::vector<PrefixTokens> tokens;  // of each block, as the prefix cache wants them
  std::vector<CacheKey> keys;        // of each block
  std::vector<size_t> rule_begin;    // first block of each rule, then the number of blocks
  PrefixTokens all_tokens;           // of the whole config
  CacheKey all_key{};
};

// What a config's blocks depend on besides its rules; fixed for the life of a Scorer.
struct ConfigRendering {
  const Tokenizer* tokenizer;
  Layout layout;
  Sha256Digest artifact;
  std::string tenant_salt;
  Limits limits;
};

class ConfigRenderer {
 public:
  explicit ConfigRenderer(ConfigRendering rendering) : rendering_(std::move(rendering)) {}

  // The blocks of `rules`. Thread-safe: the lock is held for the look-up, not while rendering.
  // Errors: EmptyConfig (no rules, or a rule without text), BadUtf8, LimitExceeded.
  Result<std::shared_ptr<const ConfigBlocks>> render(const std::vector<Rule>& rules);

  // Forgets every rendered config. Thread-safe.
  void clear();

 private:
  using Entry = std::pair<Sha256Digest, std::shared_ptr<const ConfigBlocks>>;

  std::shared_ptr<const ConfigBlocks> find(const Sha256Digest& text_digest);

  const ConfigRendering rendering_;
  std::mutex mutex_;
  std::list<Entry> recent_;  // most recently used first
};

}  // namespace csrm

#endif  // CSRM_SRC_CONFIG_BLOCKS_H_
