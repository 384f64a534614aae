// Judged turns -> Score: the lowest turn counts, and compliance >= threshold is compliant; and the
// checks of a call's threshold and options.
// Not: where the turns' rewards come from (turn_scores.h).
#ifndef CSRM_SRC_VERDICT_H_
#define CSRM_SRC_VERDICT_H_

#include <cstddef>
#include <vector>

#include "csrm/status.h"
#include "csrm/types.h"

namespace csrm {

// Errors: BadArgument (threshold outside [0, 1], unknown judged or explain, is_growing alone),
// Unsupported (a fast explanation by a decoder), LimitExceeded (max_batch).
Status check_call(const Config& config, size_t n_conversations, const ScoreOptions& options,
                  const Limits& limits, bool is_causal);

// The Score of a conversation whose judged turns (at least one) scored `turns`; no rules yet.
Score make_score(std::vector<TurnScore> turns, double threshold, size_t scored_tokens);

// The same turns under rule `rule` alone.
RuleScore make_rule_score(size_t rule, const std::vector<TurnScore>& turns, double threshold);

}  // namespace csrm

#endif  // CSRM_SRC_VERDICT_H_
