#include "fast_explain.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "batch.h"
#include "turn_scores.h"
#include "verdict.h"

namespace csrm {
namespace {

Status not_finite(size_t turn) {
  return {Code::kNonFinite, "the model gave a key or value that is not finite for turn " +
                                std::to_string(turn) + "; treat the verdict as unknown"};
}

// One row, the tokens of `block` at `chosen`, which see each other.
EncodeInput input_of(const Block& block, const std::vector<size_t>& chosen) {
  EncodeInput input;
  input.n_rows = 1;
  input.row_tokens = static_cast<int64_t>(chosen.size());
  input.n_pooled = 1;
  for (const size_t i : chosen) {
    input.input_ids.push_back(block.ids[i]);
    input.position_ids.push_back(static_cast<int64_t>(i));
  }
  input.segment_ids.assign(chosen.size(), block.segment);
  input.visible.assign(chosen.size(), input.row_tokens);
  return input;
}

}  // namespace

FastExplanation FastExplainer::start(const ConfigBlocks* config,
                                     std::shared_ptr<const Prefix> prefix, double threshold,
                                     const ConversationBlocks* conversation) const {
  return FastExplanation(this, config, std::move(prefix), threshold, conversation);
}

FastExplanation::FastExplanation(const FastExplainer* explainer, const ConfigBlocks* config,
                                 std::shared_ptr<const Prefix> prefix, double threshold,
                                 const ConversationBlocks* conversation)
    : explainer_(explainer),
      config_(config),
      prefix_(std::move(prefix)),
      threshold_(threshold),
      conversation_(conversation) {}

Status FastExplanation::step() {
  if (informed_.n_tokens == 0) return encode_all(*prefix_, &informed_, &turns_);
  if (stages_.empty()) {
    if (Status bad = encode_all(Prefix{}, &bare_, nullptr); !bad.ok()) return bad;
    plan();
    return Status::success();
  }
  return rules_.size() < n_rules() ? score_next_rule() : score_lowest_rule();
}

Status FastExplanation::score_next_rule() {
  Result<std::shared_ptr<const Prefix>> rule =
      explainer_->prefixes_->rule_prefix(*config_, rules_.size());
  if (!rule.ok()) return rule.status();
  std::vector<TurnScore> scores;
  if (Status bad = score_rule(*rule.value(), &scores); !bad.ok()) return bad;
  rules_.push_back(std::move(scores));
  if (rules_.size() < n_rules()) return Status::success();
  std::vector<float> rewards;
  for (const RuleScore& score : rule_scores()) rewards.push_back(score.reward);
  order_.resize(n_rules());
  std::iota(order_.begin(), order_.end(), size_t{0});
  std::stable_sort(order_.begin(), order_.end(),
                   [&](size_t a, size_t b) { return rewards[a] < rewards[b]; });
  return Status::success();
}

Status FastExplanation::score_lowest_rule() {
  const size_t index = order_[n_exact_];
  Result<std::shared_ptr<const Prefix>> rule = explainer_->prefixes_->rule_prefix(*config_, index);
  if (!rule.ok()) return rule.status();
  rules_[index].clear();
  if (Status bad = encode_all(*rule.value(), nullptr, &rules_[index]); !bad.ok()) return bad;
  ++n_exact_;
  const RuleScore score = make_rule_score(index, rules_[index], threshold_);
  if (score.verdict == Verdict::kCompliant) ++n_compliant_;
  return Status::success();
}

std::vector<RuleScore> FastExplanation::rule_scores() const {
  std::vector<RuleScore> scores;
  for (const std::vector<TurnScore>& turns : rules_) {
    scores.push_back(make_rule_score(scores.size(), turns, threshold_));
  }
  return scores;
}

// The keys and values of the conversation's tokens behind `start` and the scores of judged turns,
// each unless it is null.
Status FastExplanation::encode_all(const Prefix& start, Prefix* tokens,
                                   std::vector<TurnScore>* scores) const {
  const ModelShape& shape = explainer_->shape_;
  const std::vector<Row> rows = cut_rows(*conversation_, kMaxRowTokens);
  Prefix seen;  // what rows behind the first one see
  if (rows.size() > 1) {
    seen = same_keys(shape, start, start.n_tokens + conversation_->n_tokens);
  }
  if (tokens != nullptr) reserve_tokens(shape, conversation_->n_tokens, tokens);
  for (size_t r = 0; r < rows.size(); ++r) {
    EncodeInput input = pack_rows(rows, {r}, {});
    const bool is_last = r + 1 == rows.size();
    input.want_key_value = tokens != nullptr || !is_last;
    input.want_reward = scores != nullptr && !rows[r].pooled.empty();
    set_prefix(r == 0 ? start : seen, &input);
    EncodeOutput output;
    if (Status bad = explainer_->engine_->encode(input, &output); !bad.ok()) return bad;
    if (input.want_reward) {
      if (Status bad = collect_row(rows[r], 0, input, output, scores); !bad.ok()) return bad;
    }
    if (!input.want_key_value) break;
    const size_t n = rows[r].n_tokens;
    const EncodedRow encoded{output.key, output.value, 0, n, n};
    if (!is_finite(shape, encoded)) return not_finite(rows[r].blocks[0].source);
    if (tokens != nullptr) append_row(shape, encoded, tokens);
    if (!is_last) append_row(shape, encoded, &seen);
  }
  return Status::success();
}

// By token: how far the config moves its values, squared, in the upper half of the layers.
std::vector<double> FastExplanation::changes() const {
  const ModelShape& shape = explainer_->shape_;
  const size_t n_tokens = conversation_->n_tokens;
  const size_t dim = static_cast<size_t>(shape.head_dim);
  const size_t n_heads = static_cast<size_t>(shape.layers * shape.kv_heads);
  const size_t first = static_cast<size_t>(shape.layers / 2 * shape.kv_heads);
  std::vector<double> changes(n_tokens, 0.0);
  for (size_t head = first; head < n_heads; ++head) {
    for (size_t t = 0; t < n_tokens; ++t) {
      const size_t from = (head * n_tokens + t) * dim;
      float sum = 0.0f;
      for (size_t d = 0; d < dim; ++d) {
        const float change =
            number_at(shape, informed_.value, from + d) - number_at(shape, bare_.value, from + d);
        sum += change * change;
      }
      changes[t] += static_cast<double>(sum);
    }
  }
  return changes;
}

// By token: whether it is encoded anew for each rule.
std::vector<bool> FastExplanation::choose() const {
  const std::vector<double> change = changes();
  std::vector<bool> chosen(change.size(), false);
  size_t first = 0;
  for (size_t b = 0; b < conversation_->blocks.size(); ++b) {
    const size_t n = conversation_->blocks[b].ids.size();
    if (conversation_->judged[b]) {
      for (const size_t i : {size_t{0}, size_t{1}, n - 1}) chosen[first + i] = true;
    }
    first += n;
  }
  std::vector<size_t> order;
  for (size_t t = 0; t < change.size(); ++t) {
    if (!chosen[t]) order.push_back(t);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return change[a] > change[b]; });
  order.resize(std::min(order.size(), change.size() / kTokensPerReread));
  for (const size_t t : order) chosen[t] = true;
  return chosen;
}

void FastExplanation::plan() {
  const std::vector<bool> is_chosen = choose();
  average(explainer_->shape_, bare_, &informed_);
  bare_ = Prefix{};
  std::vector<size_t> others;  // places in the conversation
  size_t first = 0;
  for (size_t b = 0; b < conversation_->blocks.size(); ++b) {
    const size_t n = conversation_->blocks[b].ids.size();
    std::vector<size_t> chosen;  // places in the block
    for (size_t i = 0; i < n; ++i) {
      if (is_chosen[first + i]) {
        chosen.push_back(i);
      } else {
        others.push_back(first + i);
      }
    }
    first += n;
    if (chosen.empty()) continue;
    stages_.push_back(make_stage(informed_, others, b, chosen));
    others.clear();
  }
  stages_.back().input.want_key_value = false;  // of the last judged block
}

FastExplanation::Stage FastExplanation::make_stage(const Prefix& mean,
                                                   const std::vector<size_t>& others, size_t block,
                                                   const std::vector<size_t>& chosen) const {
  const Block& own = conversation_->blocks[block];
  Stage stage{picked_tokens(explainer_->shape_, mean, others), input_of(own, chosen), own.source};
  stage.input.want_key_value = true;
  stage.input.want_reward = conversation_->judged[block];
  stage.input.pooled_at.assign(1, stage.input.want_reward ? 0 : -1);
  return stage;
}

Status FastExplanation::score_rule(const Prefix& rule, std::vector<TurnScore>* scores) {
  const ModelShape& shape = explainer_->shape_;
  Prefix seen = same_keys(shape, rule, rule.n_tokens + conversation_->n_tokens);
  for (Stage& stage : stages_) {
    const Prefix& others = stage.others;
    const size_t n_others = others.n_tokens;
    if (n_others > 0) {
      append_row(shape, {others.key.data(), others.value.data(), 0, n_others, n_others}, &seen);
    }
    set_prefix(seen, &stage.input);
    EncodeOutput output;
    if (Status bad = explainer_->engine_->encode(stage.input, &output); !bad.ok()) return bad;
    if (stage.input.want_reward) {
      const TurnScore score{stage.turn, output.reward[0], output.compliance[0]};
      if (Status bad = check_score(score); !bad.ok()) return bad;
      fold_score(score, scores);
    }
    if (!stage.input.want_key_value) continue;
    const size_t n = static_cast<size_t>(stage.input.row_tokens);
    const EncodedRow encoded{output.key, output.value, 0, n, n};
    if (!is_finite(shape, encoded)) return not_finite(stage.turn);
    append_row(shape, encoded, &seen);
  }
  return Status::success();
}

}  // namespace csrm
