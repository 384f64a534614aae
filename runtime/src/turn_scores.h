// Conversations and a prefix -> reward and compliance of every judged turn.
// Not: rendering (conversation_rows.h), the prefix (prefix_encoder.h) or the verdict (scorer.cc).
#ifndef CSRM_SRC_TURN_SCORES_H_
#define CSRM_SRC_TURN_SCORES_H_

#include <cstddef>
#include <utility>
#include <vector>

#include "conversation_rows.h"
#include "csrm/status.h"
#include "csrm/types.h"
#include "engine.h"
#include "prefix.h"

namespace csrm {

// A conversation of at most this many tokens is one row. A longer one is encoded row after row,
// each row's keys and values appended to a private copy of the prefix: the same attention, so the
// same result, with memory for attention bounded by the row. So is one with several cues: each is
// the end of a row, and its keys and values are left out of what later rows see.
constexpr size_t kMaxRowTokens = 1024;

// Errors: NonFinite when reward or compliance is not a finite number in range.
Status check_score(const TurnScore& score);

// Adds the score of one block to those of its conversation; the chunks of one turn follow each
// other and fold to the lowest reward.
void fold_score(const TurnScore& score, std::vector<TurnScore>* scores);

// Adds what the head read in row `index` of a batch. Errors: NonFinite.
Status collect_row(const Row& row, size_t index, const EncodeInput& input,
                   const EncodeOutput& output, std::vector<TurnScore>* scores);

class TurnScorer;

// A conversation of several rows, scored one engine call a step, so that a caller can do other work
// in between. Holds the keys and values of its tokens. For one thread at a time.
class RowByRow {
 public:
  // `scorer`, `prefix` and the blocks of `rows` must outlive this object.
  RowByRow(const TurnScorer* scorer, const Prefix& prefix, const std::vector<Row>& rows);

  // Encodes the next row. Errors: EngineFailed, NonFinite; what failed is of no further use.
  Status step();

  bool is_done() const { return next_ == rows_.size(); }
  // The scores of every judged turn, once done.
  std::vector<TurnScore> take_scores() { return std::move(scores_); }

 private:
  const TurnScorer* scorer_;
  std::vector<Row> rows_;
  size_t next_ = 0;
  Prefix seen_;
  std::vector<TurnScore> scores_;
};

class TurnScorer {
 public:
  // The engine must outlive this object.
  TurnScorer(const Engine* engine, const ModelShape& shape, size_t batch_tokens, bool is_causal)
      : engine_(engine), shape_(shape), batch_tokens_(batch_tokens), is_causal_(is_causal) {}

  using TurnScores = std::vector<TurnScore>;  // one per judged turn, in order

  // The scores of each conversation under `prefix`; a null pointer is skipped and keeps an Internal
  // status. A turn's score is that of its chunk with the lowest reward. Thread-safe.
  // Errors, each conversation its own: EngineFailed, NonFinite.
  std::vector<Result<TurnScores>> score(
      const Prefix& prefix, const std::vector<const ConversationBlocks*>& conversations) const;

  // One engine call for conversations of one row each, `rows` at `indices`, whose scores are put at
  // the same places in `scores`. Thread-safe. Errors of the call: EngineFailed; of a row:
  // NonFinite.
  Status score_together(const Prefix& prefix, const std::vector<Row>& rows,
                        const std::vector<size_t>& indices,
                        std::vector<Result<TurnScores>>* scores) const;

 private:
  friend class RowByRow;

  const Engine* engine_;
  ModelShape shape_;
  size_t batch_tokens_;
  bool is_causal_;
};

}  // namespace csrm

#endif  // CSRM_SRC_TURN_SCORES_H_
