#include "verdict.h"

#include <algorithm>
#include <string>
#include <utility>

#include "limit_error.h"

namespace csrm {
namespace {

Verdict verdict_of(float compliance, double threshold) {
  return static_cast<double>(compliance) >= threshold ? Verdict::kCompliant : Verdict::kViolation;
}

const TurnScore& lowest(const std::vector<TurnScore>& turns) {
  return *std::min_element(turns.begin(), turns.end(), [](const TurnScore& a, const TurnScore& b) {
    return a.reward < b.reward;
  });
}

}  // namespace

Status check_call(const Config& config, size_t n_conversations, const ScoreOptions& options,
                  const Limits& limits, bool is_causal) {
  // Written so that NaN fails.
  if (!(config.threshold >= 0.0 && config.threshold <= 1.0)) {
    return {Code::kBadArgument, "threshold is " + std::to_string(config.threshold) +
                                    "; give a probability from 0 to 1"};
  }
  if (options.judged != Judged::kLast && options.judged != Judged::kAssistant) {
    return {Code::kBadArgument, "judged is " + std::to_string(static_cast<int>(options.judged)) +
                                    "; give 0 (last) or 1 (assistant)"};
  }
  const int explain = static_cast<int>(options.explain);
  if (explain < 0 || explain > static_cast<int>(Explain::kFast)) {
    return {Code::kBadArgument,
            "explain is " + std::to_string(explain) + "; give 0 (none), 1 (exact) or 2 (fast)"};
  }
  if (options.explain == Explain::kFast && is_causal) {
    return {Code::kUnsupported, "a decoder has no fast explanation; ask for the exact one"};
  }
  if (options.is_growing && !options.reuse_turns) {
    return {Code::kBadArgument, "is_growing is set without reuse_turns; set both or neither"};
  }
  if (n_conversations > limits.max_batch) {
    return limit_exceeded("conversations in a call:", n_conversations, limits.max_batch,
                          "max_batch", "send fewer conversations per call");
  }
  return Status::success();
}

Score make_score(std::vector<TurnScore> turns, double threshold, size_t scored_tokens) {
  const TurnScore worst = lowest(turns);
  Score score{worst.reward, worst.compliance, verdict_of(worst.compliance, threshold), {}, {}, 0};
  score.turns = std::move(turns);
  score.scored_tokens = scored_tokens;
  return score;
}

RuleScore make_rule_score(size_t rule, const std::vector<TurnScore>& turns, double threshold) {
  const TurnScore& worst = lowest(turns);
  return {rule, worst.reward, worst.compliance, verdict_of(worst.compliance, threshold)};
}

}  // namespace csrm
