// Rule blocks -> the config's prefix: from the cache where possible, else from the engine.
// Not: rendering (config_blocks.h) or scoring (turn_scores.h). An encoder's rule block sees only
// itself, so its keys and values are the same in every config and are cached by content. A
// decoder's config is one causal sequence, encoded block after block and cached whole.
#ifndef CSRM_SRC_PREFIX_ENCODER_H_
#define CSRM_SRC_PREFIX_ENCODER_H_

#include <cstddef>
#include <memory>
#include <vector>

#include "batch.h"
#include "config_blocks.h"
#include "csrm/status.h"
#include "engine.h"
#include "prefix_cache.h"

namespace csrm {

class PrefixEncoder;

constexpr size_t kWholeConfig = static_cast<size_t>(-1);  // in place of the index of a rule

// One prefix on its way: what the cache holds is found at once, the rest takes one engine call a
// step, so that a caller can do other work in between. For one thread at a time.
class PrefixBuild {
 public:
  // One engine call, or nothing once there is a result. Errors: EngineFailed, NonFinite; a build
  // that failed is of no further use.
  Status step();

  // The prefix, null while steps are left.
  const std::shared_ptr<const Prefix>& result() const { return result_; }

 private:
  friend class PrefixEncoder;
  PrefixBuild(const PrefixEncoder* encoder, const ConfigBlocks* config, size_t rule,
              size_t batch_tokens);

  void find_parts(size_t batch_tokens);
  Status encode_parts();
  Status encode_next_block();
  void join_parts();

  const PrefixEncoder* encoder_;
  const ConfigBlocks* config_;
  size_t begin_, end_;  // of the blocks
  bool is_whole_;       // a config of several blocks, which is an entry of the cache itself
  std::shared_ptr<const Prefix> result_;
  size_t n_steps_ = 0;
  // An encoder's: a part per block, and the batches of those that were missing.
  std::vector<std::shared_ptr<const Prefix>> parts_;
  std::vector<size_t> missing_;
  std::vector<Row> rows_;
  std::vector<std::vector<size_t>> batches_;
  // A decoder's: what has been encoded so far.
  Prefix sequence_;
};

class PrefixEncoder {
 public:
  // The engine and the cache must outlive this object.
  PrefixEncoder(const Engine* engine, PrefixCache* cache, const ModelShape& shape,
                size_t batch_tokens, bool is_causal)
      : engine_(engine),
        cache_(cache),
        shape_(shape),
        batch_tokens_(batch_tokens),
        is_causal_(is_causal) {}

  // The prefix of the whole config. Thread-safe; two threads that miss the same block both encode
  // it. Errors: EngineFailed, NonFinite.
  Result<std::shared_ptr<const Prefix>> config_prefix(const ConfigBlocks& config) const;

  // The prefix of rule `rule` alone (explain), not for the causal layout. Same errors.
  Result<std::shared_ptr<const Prefix>> rule_prefix(const ConfigBlocks& config, size_t rule) const;

  // The same work in steps: of the whole config, or of rule `rule` alone (not for the causal
  // layout), with at most `batch_tokens` padded tokens in an engine call. Looks in the cache, and
  // has its result at once if nothing is missing. This object and `config` must outlive it.
  PrefixBuild start(const ConfigBlocks& config, size_t rule, size_t batch_tokens) const {
    return PrefixBuild(this, &config, rule, batch_tokens);
  }

 private:
  friend class PrefixBuild;
  Result<std::shared_ptr<const Prefix>> build(const ConfigBlocks& config, size_t rule) const;

  const Engine* engine_;
  PrefixCache* cache_;
  ModelShape shape_;
  size_t batch_tokens_;
  bool is_causal_;
};

}  // namespace csrm

#endif  // CSRM_SRC_PREFIX_ENCODER_H_
