// One conversation -> its scores under each rule alone, approximately, for a part of the cost.
// Not: the exact ones (Scorer::Impl::explain), which encode the whole conversation anew for every
// rule, nor the causal layout.
//
// Which of the conversation's tokens read the rules? The conversation is encoded twice, under the
// whole config and under none. The tokens whose values in the upper half of the layers the config
// changes most are encoded anew for every rule; all others are seen as the mean of the two. The
// first two and the last token of a judged block are always encoded anew, and the head reads the
// first. Last, the conversation is encoded anew as a whole under the lowest rules. docs/datapath.md
// has the measured agreement.
#ifndef CSRM_SRC_FAST_EXPLAIN_H_
#define CSRM_SRC_FAST_EXPLAIN_H_

#include <cstddef>
#include <memory>
#include <vector>

#include "config_blocks.h"
#include "conversation_rows.h"
#include "csrm/status.h"
#include "csrm/types.h"
#include "engine.h"
#include "prefix.h"
#include "prefix_encoder.h"

namespace csrm {

// A config of at most this many rules is explained exactly, which costs less.
constexpr size_t kFewRules = 4;

inline bool explains_fast(const ScoreOptions& options, size_t n_rules) {
  return options.explain == Explain::kFast && n_rules > kFewRules;
}

// One token in this many is encoded anew for a rule, beside those of judged blocks that always are.
constexpr size_t kTokensPerReread = 8;

// The rules that come out lowest, which is what an explanation is asked for, are then scored
// exactly, one after another, until this many of them comply.
constexpr size_t kExactCompliant = 2;

class FastExplainer;

// One explanation on its way, so that a caller can do other work in between. Every engine call is
// of this conversation alone, so that no other changes the choice of tokens. For one thread at a
// time.
class FastExplanation {
 public:
  // The conversation under the whole config, then under none, then each rule, one a step, and the
  // lowest rules exactly. Errors:
  // EngineFailed, NonFinite; what failed is of no further use.
  Status step();

  bool is_done() const { return n_compliant_ == kExactCompliant || n_exact_ == n_rules(); }

  // The scores of every judged turn under the whole config, bit for bit those of TurnScorer in the
  // fused graph; of the first step.
  const std::vector<TurnScore>& turn_scores() const { return turns_; }

  // The scores of every rule, once done.
  std::vector<RuleScore> rule_scores() const;

 private:
  friend class FastExplainer;
  // The tokens of one block that are encoded anew, and what they see besides the rule and each
  // other: `others` come after those of the stages before.
  struct Stage {
    Prefix others;
    EncodeInput input;
    size_t turn;
  };

  FastExplanation(const FastExplainer* explainer, const ConfigBlocks* config,
                  std::shared_ptr<const Prefix> prefix, double threshold,
                  const ConversationBlocks* conversation);

  Status encode_all(const Prefix& start, Prefix* tokens, std::vector<TurnScore>* scores) const;
  size_t n_rules() const { return config_->rule_begin.size() - 1; }
  Status score_next_rule();
  Status score_lowest_rule();
  std::vector<double> changes() const;
  std::vector<bool> choose() const;
  void plan();
  Stage make_stage(const Prefix& mean, const std::vector<size_t>& others, size_t block,
                   const std::vector<size_t>& chosen) const;
  Status score_rule(const Prefix& rule, std::vector<TurnScore>* scores);

  const FastExplainer* explainer_;
  const ConfigBlocks* config_;
  std::shared_ptr<const Prefix> prefix_;
  double threshold_;
  const ConversationBlocks* conversation_;
  Prefix informed_, bare_;  // the conversation's tokens under the whole config and under none
  std::vector<TurnScore> turns_;
  std::vector<Stage> stages_;
  std::vector<std::vector<TurnScore>> rules_;  // those done
  std::vector<size_t> order_;                  // of the rules, lowest first, once all are done
  size_t n_exact_ = 0;                         // of `order_`, that are scored exactly
  size_t n_compliant_ = 0;                     // of those
};

class FastExplainer {
 public:
  // The engine and `prefixes` must outlive this object.
  FastExplainer(const Engine* engine, const PrefixEncoder* prefixes, const ModelShape& shape)
      : engine_(engine), prefixes_(prefixes), shape_(shape) {}

  // Begins to explain `conversation` under `config`, whose prefix is `prefix`, with the threshold
  // of verdicts. This object, `config` and `conversation` must outlive what it returns.
  // Thread-safe.
  FastExplanation start(const ConfigBlocks* config, std::shared_ptr<const Prefix> prefix,
                        double threshold, const ConversationBlocks* conversation) const;

 private:
  friend class FastExplanation;

  const Engine* engine_;
  const PrefixEncoder* prefixes_;
  ModelShape shape_;
};

}  // namespace csrm

#endif  // CSRM_SRC_FAST_EXPLAIN_H_
