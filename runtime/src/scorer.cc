// Scorer: the stages of docs/datapath.md in order. Each stage is its own file; this one loads
// them and passes each one's struct to the next, for one call in the caller's thread.
#include "csrm/scorer.h"

#include <utility>

#include "engine_choice.h"
#include "guarded.h"
#include "kernels/isa.h"
#include "limit_error.h"
#include "scorer_impl.h"
#include "threads.h"

namespace csrm {
namespace {

constexpr int kMaxThreads = 1024;
constexpr size_t kMaxBatchTokens = size_t{1} << 24;

Status check_options(const ScorerOptions& options) {
  const auto bad = [](const std::string& message) { return Status{Code::kBadArgument, message}; };
  if (options.n_threads < 0 || options.n_threads > kMaxThreads) {
    return bad("n_threads is " + std::to_string(options.n_threads) +
               "; give 0 (physical cores) to " + std::to_string(kMaxThreads));
  }
  if (options.batch_tokens < 1 || options.batch_tokens > kMaxBatchTokens) {
    return bad("batch_tokens is " + std::to_string(options.batch_tokens) + "; give 1 to " +
               std::to_string(kMaxBatchTokens));
  }
  return check_variant(options.variant);
}

Result<Layout> layout_of(const Manifest& manifest, const Tokenizer& tokenizer) {
  Layout layout;
  layout.is_causal = manifest.is_causal;
  layout.blocks = manifest.tmpl;
  layout.max_positions = static_cast<size_t>(manifest.model.max_positions);
  if (!manifest.is_causal) return layout;
  Result<ChatTemplate> chat = resolve_chat(manifest.chat, tokenizer);
  if (!chat.ok()) return {Code::kBadArtifact, "manifest.json: " + chat.status().message};
  layout.chat = std::move(chat).value();
  return layout;
}

ScorerInfo make_info(const Artifact& artifact, const LoadedEngine& loaded, int n_threads) {
  const Manifest& manifest = artifact.manifest;
  ScorerInfo info;
  info.name = manifest.name;
  info.variant = loaded.variant;
  info.device = device_name(loaded.engine->device());
  info.device_note = loaded.note;
  info.kernels = kernels::chosen_isa();
  info.artifact_digest = to_hex(artifact.digest);
  info.engine_version = loaded.engine->version();
  info.n_threads = n_threads;
  info.threshold = manifest.threshold;
  info.calibration_a = manifest.calibration.a;
  info.calibration_b = manifest.calibration.b;
  info.layers = manifest.model.layers;
  info.kv_heads = manifest.model.kv_heads;
  info.head_dim = manifest.model.head_dim;
  info.vocab_size = manifest.model.vocab_size;
  info.backbone = manifest.is_causal ? "decoder" : "encoder";
  info.max_positions = static_cast<size_t>(manifest.model.max_positions);
  info.max_block_tokens = static_cast<size_t>(manifest.is_causal ? manifest.chat.max_block_tokens
                                                                 : manifest.tmpl.max_block_tokens);
  return info;
}

}  // namespace

Result<std::unique_ptr<Scorer>> Scorer::load(const std::string& artifact_dir,
                                             const ScorerOptions& options) noexcept {
  return guarded<Result<std::unique_ptr<Scorer>>>([&]() -> Result<std::unique_ptr<Scorer>> {
    if (Status bad = check_options(options); !bad.ok()) return bad;
    const Result<Device> device = parse_device(options.device);
    if (!device.ok()) return device.status();
    Result<Artifact> artifact = open_artifact(artifact_dir);
    if (!artifact.ok()) return artifact.status();
    Result<Tokenizer> tokenizer = Tokenizer::from_json(artifact.value().tokenizer_json);
    if (!tokenizer.ok()) return tokenizer.status();
    const int64_t vocab_size = artifact.value().manifest.model.vocab_size;
    if (static_cast<int64_t>(tokenizer.value().vocab_size()) > vocab_size) {
      return {Code::kBadArtifact, "tokenizer.json has " +
                                      std::to_string(tokenizer.value().vocab_size()) +
                                      " ids; the model's vocab_size is " +
                                      std::to_string(vocab_size) + "; export it again"};
    }
    Result<Layout> layout = layout_of(artifact.value().manifest, tokenizer.value());
    if (!layout.ok()) return layout.status();
    const int n_threads = options.n_threads > 0 ? options.n_threads : default_threads();
    Result<LoadedEngine> loaded =
        load_engine(artifact.value(), {device.value(), options.variant},
                    {options.engine_library, n_threads, options.allow_spinning});
    if (!loaded.ok()) return loaded.status();
    ScorerInfo info = make_info(artifact.value(), loaded.value(), n_threads);
    auto impl = std::make_unique<Impl>(std::move(artifact).value(), std::move(tokenizer).value(),
                                       std::move(layout).value(), std::move(loaded.value().engine),
                                       std::move(info), options);
    return std::unique_ptr<Scorer>(new Scorer(std::move(impl)));
  });
}

Scorer::Scorer(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
Scorer::~Scorer() = default;

Result<Score> Scorer::score(const Config& config, const Conversation& conversation,
                            const ScoreOptions& options) const noexcept {
  return guarded<Result<Score>>([&]() -> Result<Score> {
    auto scores = impl_->score_batch(config, {conversation}, options);
    if (!scores.ok()) return scores.status();
    return std::move(scores.value().front());
  });
}

Result<std::vector<Result<Score>>> Scorer::score_batch(
    const Config& config, const std::vector<Conversation>& conversations,
    const ScoreOptions& options) const noexcept {
  return guarded<Result<std::vector<Result<Score>>>>(
      [&] { return impl_->score_batch(config, conversations, options); });
}

Result<std::vector<Result<Score>>> Scorer::Impl::score_batch(
    const Config& config, const std::vector<Conversation>& conversations,
    const ScoreOptions& options) {
  if (Status bad = check_call(config, conversations.size(), options, limits, layout.is_causal);
      !bad.ok())
    return bad;
  Result<std::shared_ptr<const ConfigBlocks>> config_blocks = configs.render(config.rules);
  if (!config_blocks.ok()) return config_blocks.status();
  Result<std::shared_ptr<const Prefix>> prefix = prefixes.config_prefix(*config_blocks.value());
  if (!prefix.ok()) return prefix.status();

  std::vector<Result<ConversationBlocks>> rendered;
  rendered.reserve(conversations.size());
  Pointers valid;  // null where the conversation has an error of its own
  for (const Conversation& conversation : conversations) {
    rendered.push_back(render(conversation, options.judged, prefix.value()->n_tokens));
    valid.push_back(rendered.back().ok() ? &rendered.back().value() : nullptr);
  }
  std::vector<Result<Score>> scores;
  scores.reserve(conversations.size());
  if (explains_fast(options, config.rules.size())) {
    for (size_t c = 0; c < conversations.size(); ++c) {
      scores.push_back(valid[c] == nullptr ? Result<Score>(rendered[c].status())
                                           : score_fast(*config_blocks.value(), prefix.value(),
                                                        config.threshold, *valid[c], options));
    }
    return scores;
  }
  std::vector<Result<TurnScorer::TurnScores>> turn_scores =
      score_turns({&config_blocks.value()->all_key, prefix.value()}, valid, options);
  for (size_t c = 0; c < conversations.size(); ++c) {
    if (valid[c] == nullptr) {
      scores.emplace_back(rendered[c].status());
    } else if (!turn_scores[c].ok()) {
      scores.emplace_back(turn_scores[c].status());
      valid[c] = nullptr;
    } else {
      scores.emplace_back(
          make_score(std::move(turn_scores[c]).value(), config.threshold, valid[c]->n_tokens));
    }
  }
  if (options.explain != Explain::kNone) {
    Status status = explain(*config_blocks.value(), config, valid, &scores);
    if (!status.ok()) return status;
  }
  return scores;
}

std::vector<Result<TurnScorer::TurnScores>> Scorer::Impl::score_turns(
    const RunStart& start, const Pointers& conversations, const ScoreOptions& options) const {
  if (!options.reuse_turns) return turns.score(*start.prefix, conversations);
  std::vector<Result<TurnScorer::TurnScores>> scores;
  scores.reserve(conversations.size());
  for (const ConversationBlocks* conversation : conversations) {
    if (conversation == nullptr) {
      scores.emplace_back(Code::kInternal, "the conversation was skipped");
    } else {
      scores.push_back(incremental.score(start, *conversation, options.is_growing));
    }
  }
  return scores;
}

Result<ConversationBlocks> Scorer::Impl::render(const Conversation& conversation, Judged judged,
                                                size_t n_prefix_tokens) const {
  Result<ConversationBlocks> rendered =
      render_conversation(tokenizer, layout, conversation, judged, limits);
  if (!rendered.ok() || !layout.is_causal) return rendered;
  const size_t n_positions = n_prefix_tokens + rendered.value().n_positions;
  if (Status bad = check_positions(n_positions, layout.max_positions); !bad.ok()) return bad;
  return rendered;
}

// The prefix under which rule `index` of `config` is explained: its blocks, or, in the causal
// layout, a config that holds this rule alone.
Result<std::shared_ptr<const Prefix>> Scorer::Impl::rule_prefix(const ConfigBlocks& config,
                                                                const Rule& rule, size_t index) {
  if (!layout.is_causal) return prefixes.rule_prefix(config, index);
  Result<std::shared_ptr<const ConfigBlocks>> alone = configs.render({rule});
  if (!alone.ok()) return alone.status();
  return prefixes.config_prefix(*alone.value());
}

Status Scorer::Impl::explain(const ConfigBlocks& blocks, const Config& config,
                             const Pointers& conversations, std::vector<Result<Score>>* scores) {
  for (size_t rule = 0; rule < config.rules.size(); ++rule) {
    Result<std::shared_ptr<const Prefix>> prefix = rule_prefix(blocks, config.rules[rule], rule);
    if (!prefix.ok()) return prefix.status();
    std::vector<Result<TurnScorer::TurnScores>> under = turns.score(*prefix.value(), conversations);
    for (size_t c = 0; c < conversations.size(); ++c) {
      Result<Score>& score = (*scores)[c];
      if (!score.ok()) continue;
      if (!under[c].ok()) {
        score = under[c].status();
        continue;
      }
      score.value().rules.push_back(make_rule_score(rule, under[c].value(), config.threshold));
    }
  }
  return Status::success();
}

// The score with a fast explanation, whose first step gives the score too.
Result<Score> Scorer::Impl::score_fast(const ConfigBlocks& blocks,
                                       const std::shared_ptr<const Prefix>& prefix,
                                       double threshold, const ConversationBlocks& conversation,
                                       const ScoreOptions& options) const {
  FastExplanation explanation = fast.start(&blocks, prefix, threshold, &conversation);
  while (!explanation.is_done()) {
    if (Status bad = explanation.step(); !bad.ok()) return bad;
  }
  Result<TurnScorer::TurnScores> turns_read = explanation.turn_scores();
  if (options.reuse_turns) {
    turns_read = incremental.score({&blocks.all_key, prefix}, conversation, options.is_growing);
    if (!turns_read.ok()) return turns_read.status();
  }
  Score score = make_score(std::move(turns_read).value(), threshold, conversation.n_tokens);
  score.rules = explanation.rule_scores();
  return score;
}

Result<size_t> Scorer::count_tokens(std::string_view text) const noexcept {
  return guarded<Result<size_t>>([&]() -> Result<size_t> {
    std::vector<int32_t> ids;
    if (Status bad = impl_->tokenizer.encode(text, &ids); !bad.ok()) return bad;
    return ids.size();
  });
}

const ScorerInfo& Scorer::info() const noexcept { return impl_->info; }

CacheStats Scorer::cache_stats() const noexcept {
  const PrefixCacheStats stats = impl_->cache.stats();
  return {stats.n_hits,    stats.n_misses, stats.n_evictions,
          stats.n_entries, stats.n_tokens, stats.max_tokens};
}

void Scorer::clear_cache() noexcept {
  impl_->cache.clear();
  impl_->configs.clear();
}

Status Scorer::check_integrity() const noexcept {
  return guarded<Status>([&] { return impl_->cache.check_integrity(); });
}

}  // namespace csrm
