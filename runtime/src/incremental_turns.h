// A growing conversation -> reward and compliance of its judged turns, encoding only what is new.
// Not: one score of a whole conversation in as few rows as possible (turn_scores.h). Every block is
// a row of its own over the config and all earlier blocks, which the prefix cache keeps as a run
// (prefix_cache.h). The rows are always the same, so a score is bit-identical whether a block was
// cached or encoded now.
#ifndef CSRM_SRC_INCREMENTAL_TURNS_H_
#define CSRM_SRC_INCREMENTAL_TURNS_H_

#include <memory>
#include <vector>

#include "conversation_rows.h"
#include "csrm/status.h"
#include "engine.h"
#include "prefix.h"
#include "prefix_cache.h"
#include "turn_scores.h"

namespace csrm {

// A config as a conversation's run goes on from it.
struct RunStart {
  const CacheKey* key;
  std::shared_ptr<const Prefix> prefix;
};

class IncrementalTurns {
 public:
  // The engine and the cache must outlive this object.
  IncrementalTurns(const Engine* engine, PrefixCache* cache, const ModelShape& shape,
                   bool is_causal)
      : engine_(engine), cache_(cache), shape_(shape), is_causal_(is_causal) {}

  // The scores of one conversation. Afterwards the config and all its blocks are one run in the
  // cache, without the last block if `is_growing`; nothing is kept if it fails, or if the cache
  // cannot hold the run beside its config. Thread-safe; two threads with the same new turns both
  // encode them. Errors: EngineFailed, NonFinite.
  Result<TurnScorer::TurnScores> score(const RunStart& config,
                                       const ConversationBlocks& conversation,
                                       bool is_growing) const;

 private:
  struct Plan;
  struct Run;

  Plan plan(const RunStart& config, const ConversationBlocks& conversation, bool is_growing) const;
  Run find(const RunStart& config, const Plan& plan) const;
  Status encode_rest(const Plan& plan, Run* run) const;
  Status encode_block(const Plan& plan, size_t index, Run* run) const;
  Status ask_cue(const Block& cue, Run* run) const;
  void append(const Plan& plan, size_t index, const EncodedRow& encoded, Run* run) const;

  const Engine* engine_;
  PrefixCache* cache_;
  ModelShape shape_;
  bool is_causal_;
};

}  // namespace csrm

#endif  // CSRM_SRC_INCREMENTAL_TURNS_H_
