// Rule blocks -> the config's prefix: from the cache where possible, else from the engine.
// Not: rendering (config_blocks.h) or scoring (turn_scores.h). An encoder's rule block sees only
// itself, so its keys and values are the same in every config and are cached by content. A
// decoder's config is one causal sequence, encoded block after block and cached whole.
#ifndef CSRM_SRC_PREFIX_ENCODER_H_
#define CSRM_SRC_PREFIX_ENCODER_H_

#include <cstddef>
#include <memory>
#include <vector>

#include "config_blocks.h"
#include "csrm/status.h"
#include "engine.h"
#include "prefix_cache.h"

namespace csrm {

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

 private:
  using Parts = std::vector<std::shared_ptr<const Prefix>>;

  // One prefix per block of [begin, end), missing ones encoded in batches and kept.
  Result<Parts> block_prefixes(const ConfigBlocks& config, size_t begin, size_t end) const;
  Result<std::shared_ptr<const Prefix>> causal_prefix(const ConfigBlocks& config) const;
  Status encode_missing(const ConfigBlocks& config, const std::vector<size_t>& missing,
                        size_t begin, Parts* parts) const;

  const Engine* engine_;
  PrefixCache* cache_;
  ModelShape shape_;
  size_t batch_tokens_;
  bool is_causal_;
};

}  // namespace csrm

#endif  // CSRM_SRC_PREFIX_ENCODER_H_
