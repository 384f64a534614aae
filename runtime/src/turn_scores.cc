#include "turn_scores.h"

#include <cmath>
#include <utility>

#include "batch.h"

namespace csrm {
namespace {

using TurnScores = TurnScorer::TurnScores;

}  // namespace

Status collect_row(const Row& row, size_t index, const EncodeInput& input,
                   const EncodeOutput& output, TurnScores* scores) {
  const size_t first = index * static_cast<size_t>(input.n_pooled);
  for (size_t j = 0; j < row.pooled.size(); ++j) {
    const TurnScore score{row.blocks[row.pooled[j]].source, output.reward[first + j],
                          output.compliance[first + j]};
    if (Status bad = check_score(score); !bad.ok()) return bad;
    fold_score(score, scores);
  }
  return Status::success();
}

Status check_score(const TurnScore& score) {
  if (std::isfinite(score.reward) && score.compliance >= 0.0f && score.compliance <= 1.0f) {
    return Status::success();
  }
  return {Code::kNonFinite,
          "the model gave a reward or compliance that is not a finite number in range for turn " +
              std::to_string(score.turn) + "; treat the verdict as unknown"};
}

void fold_score(const TurnScore& score, std::vector<TurnScore>* scores) {
  if (scores->empty() || scores->back().turn != score.turn) {
    scores->push_back(score);
  } else if (score.reward < scores->back().reward) {
    scores->back() = score;
  }
}

std::vector<Result<TurnScores>> TurnScorer::score(
    const Prefix& prefix, const std::vector<const ConversationBlocks*>& conversations) const {
  std::vector<Result<TurnScores>> scores(
      conversations.size(), Result<TurnScores>(Code::kInternal, "the conversation was skipped"));
  std::vector<Row> rows;
  std::vector<size_t> owner;  // of each row: index of its conversation
  for (size_t c = 0; c < conversations.size(); ++c) {
    if (conversations[c] == nullptr) continue;
    std::vector<Row> cut = cut_rows(*conversations[c], kMaxRowTokens);
    if (cut.size() > 1) {
      RowByRow row_by_row(this, prefix, cut);
      Status status;
      while (status.ok() && !row_by_row.is_done()) status = row_by_row.step();
      if (status.ok()) {
        scores[c] = row_by_row.take_scores();
      } else {
        scores[c] = std::move(status);
      }
      continue;
    }
    rows.push_back(std::move(cut.front()));
    owner.push_back(c);
  }
  std::vector<Result<TurnScores>> row_scores(rows.size(), Result<TurnScores>(TurnScores{}));
  for (const auto& indices : plan_batches(rows, {batch_tokens_, prefix.n_tokens})) {
    Status status = score_together(prefix, rows, indices, &row_scores);
    if (status.ok()) continue;
    for (const size_t index : indices) row_scores[index] = status;
  }
  for (size_t r = 0; r < rows.size(); ++r) scores[owner[r]] = std::move(row_scores[r]);
  return scores;
}

Status TurnScorer::score_together(const Prefix& prefix, const std::vector<Row>& rows,
                                  const std::vector<size_t>& indices,
                                  std::vector<Result<TurnScores>>* scores) const {
  EncodeInput input = pack_rows(rows, indices, {is_causal_, prefix.n_tokens});
  input.want_reward = true;
  set_prefix(prefix, &input);
  EncodeOutput output;
  if (Status bad = engine_->encode(input, &output); !bad.ok()) return bad;
  for (size_t i = 0; i < indices.size(); ++i) {
    Result<TurnScores>& result = (*scores)[indices[i]];
    Status status = collect_row(rows[indices[i]], i, input, output, &result.value());
    if (!status.ok()) result = std::move(status);
  }
  return Status::success();
}

RowByRow::RowByRow(const TurnScorer* scorer, const Prefix& prefix, const std::vector<Row>& rows)
    : scorer_(scorer), rows_(rows) {
  size_t n_all = prefix.n_tokens;
  for (size_t r = 0; r + 1 < rows.size(); ++r) n_all += rows[r].n_tokens - rows[r].n_cue_tokens;
  seen_ = same_keys(scorer->shape_, prefix, n_all);
}

Status RowByRow::step() {
  const Row& row = rows_[next_];
  const bool is_last = next_ + 1 == rows_.size();
  EncodeInput input = pack_rows(rows_, {next_}, {scorer_->is_causal_, seen_.n_tokens});
  input.want_reward = !row.pooled.empty();
  input.want_key_value = !is_last;
  set_prefix(seen_, &input);
  EncodeOutput output;
  if (Status bad = scorer_->engine_->encode(input, &output); !bad.ok()) return bad;
  if (input.want_reward) {
    if (Status bad = collect_row(row, 0, input, output, &scores_); !bad.ok()) return bad;
  }
  if (!is_last) {
    const size_t n_kept = row.n_tokens - row.n_cue_tokens;
    append_row(scorer_->shape_, {output.key, output.value, 0, row.n_tokens, n_kept}, &seen_);
  } else if (!is_finite(scorer_->shape_, seen_)) {
    return {Code::kNonFinite,
            "the model gave a key or value that is not finite for a turn; treat "
            "the verdict as unknown"};
  }
  ++next_;
  return Status::success();
}

}  // namespace csrm
