#include "incremental_turns.h"

#include <string>
#include <utility>

#include "batch.h"

namespace csrm {

// What one call encodes and keeps. Cues are no blocks here: nothing sees them.
struct IncrementalTurns::Plan {
  std::vector<const Block*> blocks;
  std::vector<const Block*> cues;  // by block: asked after it, or null
  std::vector<bool> judged;        // by block
  std::vector<CacheKey> keys;      // by block: of the run that ends with it
  PrefixTokens tokens;             // of the config and of all blocks
  size_t n_keep = 0;               // blocks of the run that is kept
};

// The run so far: `shared` until something is appended to it, then `owned`.
struct IncrementalTurns::Run {
  std::shared_ptr<const Prefix> shared;
  std::shared_ptr<Prefix> owned;
  size_t n_blocks = 0;             // of turns that it has
  std::vector<BlockScore> scores;  // by block
  const Prefix& prefix() const { return owned != nullptr ? *owned : *shared; }
};

namespace {

// Room for some turns more, so that most appends need no new memory.
size_t with_slack(size_t n_tokens) { return n_tokens + n_tokens / 8 + 64; }

BlockScore read_score(const EncodeOutput& output) {
  return {true, output.reward[0], output.compliance[0]};
}

}  // namespace

Result<TurnScorer::TurnScores> IncrementalTurns::score(const RunStart& config,
                                                       const ConversationBlocks& conversation,
                                                       bool is_growing) const {
  const Plan planned = plan(config, conversation, is_growing);
  Run run = find(config, planned);
  if (Status bad = encode_rest(planned, &run); !bad.ok()) return bad;
  TurnScorer::TurnScores scores;
  for (size_t b = 0; b < planned.blocks.size(); ++b) {
    if (!planned.judged[b]) continue;
    const TurnScore score{planned.blocks[b]->source, run.scores[b].reward,
                          run.scores[b].compliance};
    if (Status bad = check_score(score); !bad.ok()) return bad;
    fold_score(score, &scores);
  }
  return scores;
}

IncrementalTurns::Plan IncrementalTurns::plan(const RunStart& config,
                                              const ConversationBlocks& conversation,
                                              bool is_growing) const {
  Plan plan;
  plan.tokens = config.prefix->tokens;
  CacheKey key = *config.key;
  for (size_t b = 0; b < conversation.blocks.size(); ++b) {
    const Block& block = conversation.blocks[b];
    if (block.is_cue) {
      plan.cues.back() = &block;
      plan.judged.back() = conversation.judged[b];
      continue;
    }
    key = extend_cache_key(key, block);
    plan.keys.push_back(key);
    plan.tokens.append(block);
    plan.blocks.push_back(&block);
    plan.cues.push_back(nullptr);
    plan.judged.push_back(conversation.judged[b]);
  }
  // Beside its config, or each would push the other out at every call.
  const size_t n_growing = is_growing ? plan.blocks.back()->ids.size() : 0;
  const size_t n_run = plan.tokens.ids.size() - n_growing;
  if (n_run + config.prefix->n_tokens <= cache_->max_tokens()) {
    plan.n_keep = plan.blocks.size() - (is_growing ? 1 : 0);
  }
  return plan;
}

// The longest run in the cache, cut where a judged turn's score is not known: a cue can only be
// asked behind the turn.
IncrementalTurns::Run IncrementalTurns::find(const RunStart& config, const Plan& plan) const {
  Run run;
  FoundRun found = cache_->find_run(plan.keys, plan.tokens);
  if (found.prefix == nullptr) {
    run.shared = config.prefix;
    return run;
  }
  size_t n = 0;
  while (n < found.n_blocks) {
    const BlockScore& score = found.prefix->scores[n];
    run.scores.push_back(score);
    ++n;
    if (plan.judged[n - 1] && !score.is_known) break;
  }
  run.n_blocks = n;
  const size_t n_blocks = config.prefix->tokens.ends.size() + n;
  if (n_blocks == found.prefix->tokens.ends.size()) {
    run.shared = std::move(found.prefix);
    return run;
  }
  const PrefixCut cut{n_blocks, plan.tokens.ends[n_blocks - 1]};
  run.owned = std::make_shared<Prefix>(
      leading_part(shape_, *found.prefix, cut, with_slack(plan.tokens.ids.size())));
  return run;
}

Status IncrementalTurns::encode_rest(const Plan& plan, Run* run) const {
  const size_t n_found = run->n_blocks;
  for (;;) {
    const size_t n = run->n_blocks;
    if (n > 0 && plan.cues[n - 1] != nullptr && !run->scores[n - 1].is_known) {
      if (Status bad = ask_cue(*plan.cues[n - 1], run); !bad.ok()) return bad;
    }
    if (n > n_found && n == plan.n_keep) {
      run->owned->scores = run->scores;
      run->shared = std::move(run->owned);
      const auto end = plan.keys.begin() + static_cast<std::ptrdiff_t>(n);
      cache_->insert_run({plan.keys.begin(), end}, run->shared);
    }
    if (n == plan.blocks.size()) return Status::success();
    if (Status bad = encode_block(plan, n, run); !bad.ok()) return bad;
  }
}

Status IncrementalTurns::encode_block(const Plan& plan, size_t index, Run* run) const {
  const Block& block = *plan.blocks[index];
  const size_t n = block.ids.size();
  Row row{&block, 1, n, {}};
  if (!is_causal_) row.pooled.push_back(0);
  EncodeInput input = pack_rows({row}, {0}, {is_causal_, run->prefix().n_tokens});
  input.want_reward = !is_causal_;
  input.want_key_value = true;
  set_prefix(run->prefix(), &input);
  EncodeOutput output;
  if (Status bad = engine_->encode(input, &output); !bad.ok()) return bad;
  const EncodedRow encoded{output.key, output.value, 0, n, n};
  if (!is_finite(shape_, encoded)) {
    return {Code::kNonFinite, "the model gave a key or value that is not finite for turn " +
                                  std::to_string(block.source) + "; treat the verdict as unknown"};
  }
  run->scores.push_back(is_causal_ ? BlockScore{} : read_score(output));
  const BlockScore& score = run->scores.back();
  if (plan.judged[index] && score.is_known) {
    Status bad = check_score({block.source, score.reward, score.compliance});
    if (!bad.ok()) return bad;
  }
  const bool is_read_again = index + 1 < plan.blocks.size() || plan.cues[index] != nullptr;
  if (index < plan.n_keep || is_read_again) append(plan, index, encoded, run);
  run->n_blocks = index + 1;
  return Status::success();
}

Status IncrementalTurns::ask_cue(const Block& cue, Run* run) const {
  const size_t n = cue.ids.size();
  EncodeInput input = pack_rows({{&cue, 1, n, {0}, n}}, {0}, {is_causal_, run->prefix().n_tokens});
  input.want_reward = true;
  set_prefix(run->prefix(), &input);
  EncodeOutput output;
  if (Status bad = engine_->encode(input, &output); !bad.ok()) return bad;
  run->scores.back() = read_score(output);
  return check_score({cue.source, run->scores.back().reward, run->scores.back().compliance});
}

// A run that the cache and this call alone know grows in place, if the cache is to have it back;
// any other is copied.
void IncrementalTurns::append(const Plan& plan, size_t index, const EncodedRow& encoded,
                              Run* run) const {
  const bool is_kept = index < plan.n_keep;
  if (run->owned == nullptr && is_kept && index > 0) {
    run->owned = cache_->take_run(plan.keys[index - 1], &run->shared);
  }
  const size_t n_tokens = run->prefix().n_tokens + encoded.n_tokens;
  if (run->owned == nullptr) {
    const Prefix& base = *run->shared;
    const size_t n_all = plan.tokens.ids.size();
    run->owned = std::make_shared<Prefix>(leading_part(shape_, base,
                                                       {base.tokens.ends.size(), base.n_tokens},
                                                       is_kept ? with_slack(n_all) : n_all));
    run->shared.reset();
  }
  Prefix* prefix = run->owned.get();
  if (prefix->key.capacity() < n_tokens * shape_.bytes_per_token()) {
    reserve_tokens(shape_, with_slack(n_tokens), prefix);
  }
  append_row(shape_, encoded, prefix);
  prefix->tokens.append(*plan.blocks[index]);
}

}  // namespace csrm
