// What a Scorer holds: the loaded parts, one per stage. Scorer (scorer.cc) runs the stages in the
// caller's thread, Scheduler (job_stages.cc) as pieces between those of other requests.
// Not: any stage of its own.
#ifndef CSRM_SRC_SCORER_IMPL_H_
#define CSRM_SRC_SCORER_IMPL_H_

#include <memory>
#include <utility>
#include <vector>

#include "artifact.h"
#include "config_blocks.h"
#include "conversation_rows.h"
#include "csrm/scorer.h"
#include "engine.h"
#include "fast_explain.h"
#include "incremental_turns.h"
#include "layout.h"
#include "prefix_cache.h"
#include "prefix_encoder.h"
#include "tokenizer.h"
#include "turn_scores.h"
#include "verdict.h"

namespace csrm {

struct Scorer::Impl {
  Impl(Artifact opened, Tokenizer parsed, Layout loaded_layout, std::unique_ptr<Engine> loaded,
       ScorerInfo loaded_info, const ScorerOptions& options)
      : artifact(std::move(opened)),
        tokenizer(std::move(parsed)),
        engine(std::move(loaded)),
        info(std::move(loaded_info)),
        limits(options.limits),
        cache(options.cache_tokens),
        layout(std::move(loaded_layout)),
        configs({&tokenizer, layout, artifact.digest, options.tenant_salt, options.limits}),
        prefixes(engine.get(), &cache, artifact.manifest.model, options.batch_tokens,
                 layout.is_causal),
        turns(engine.get(), artifact.manifest.model, options.batch_tokens, layout.is_causal),
        incremental(engine.get(), &cache, artifact.manifest.model, layout.is_causal),
        fast(engine.get(), &prefixes, artifact.manifest.model) {}

  using Pointers = std::vector<const ConversationBlocks*>;

  Result<std::vector<Result<Score>>> score_batch(const Config& config,
                                                 const std::vector<Conversation>& conversations,
                                                 const ScoreOptions& options);
  // Renders a conversation that will stand after `n_prefix_tokens` of a config. Thread-safe.
  Result<ConversationBlocks> render(const Conversation& conversation, Judged judged,
                                    size_t n_prefix_tokens) const;
  Result<std::shared_ptr<const Prefix>> rule_prefix(const ConfigBlocks& config, const Rule& rule,
                                                    size_t index);
  std::vector<Result<TurnScorer::TurnScores>> score_turns(const RunStart& start,
                                                          const Pointers& conversations,
                                                          const ScoreOptions& options) const;
  Status explain(const ConfigBlocks& blocks, const Config& config, const Pointers& conversations,
                 std::vector<Result<Score>>* scores);
  Result<Score> score_fast(const ConfigBlocks& blocks, const std::shared_ptr<const Prefix>& prefix,
                           double threshold, const ConversationBlocks& conversation,
                           const ScoreOptions& options) const;

  const Artifact artifact;
  const Tokenizer tokenizer;
  const std::unique_ptr<Engine> engine;
  const ScorerInfo info;
  const Limits limits;
  PrefixCache cache;
  const Layout layout;
  ConfigRenderer configs;
  const PrefixEncoder prefixes;
  const TurnScorer turns;
  const IncrementalTurns incremental;
  const FastExplainer fast;
};

}  // namespace csrm

#endif  // CSRM_SRC_SCORER_IMPL_H_
