#include "job_stages.h"

#include <numeric>
#include <utility>
#include <vector>

#include "guarded.h"

namespace csrm {

Result<JobPointer> JobStages::prepare(ScoreRequest request, Scheduler::Callback callback) const {
  Status bad =
      check_call(request.config, 1, request.options, parts_->limits, parts_->layout.is_causal);
  if (!bad.ok()) return bad;
  auto job = std::make_unique<Job>();
  Result<std::shared_ptr<const ConfigBlocks>> blocks = parts_->configs.render(request.config.rules);
  if (!blocks.ok()) return blocks.status();
  job->config_blocks = std::move(blocks).value();
  Result<ConversationBlocks> conversation = parts_->render(
      request.conversation, request.options.judged, job->config_blocks->all_tokens.ids.size());
  if (!conversation.ok()) return conversation.status();
  job->conversation = std::move(conversation).value();
  job->rows = cut_rows(job->conversation, kMaxRowTokens);
  job->config = std::move(request.config);
  job->options = request.options;
  job->deadline = request.deadline;
  job->callback = std::move(callback);
  job->explains_fast =
      !job->options.reuse_turns && explains_fast(job->options, job->config.rules.size());
  job->shares_call = job->rows.size() == 1 && !job->options.reuse_turns && !job->explains_fast;
  job->is_quick = job->shares_call && job->options.explain == Explain::kNone;
  bad = begin_pass(kWholeConfig, job.get());
  if (!bad.ok()) return bad;
  return job;
}

void JobStages::run(Unit* unit) const noexcept {
  Status status = guarded<Status>([&] {
    if (unit->jobs.empty()) return build_prefix(unit);
    const Job& first = *unit->jobs.front();
    if (first.explains_fast) return run_fast(unit);
    if (first.options.reuse_turns && first.rule == kWholeConfig) return run_incremental(unit);
    return first.shares_call ? run_together(unit) : run_next_row(unit);
  });
  if (status.ok()) return;
  if (unit->jobs.empty()) unit->failure = status;
  for (const JobPointer& job : unit->jobs) {
    if (!job->answer.has_value()) job->answer = Result<Score>(status);
  }
}

Status JobStages::build_prefix(Unit* unit) const {
  Group& group = *unit->group;
  if (group.build == nullptr) {
    group.build = std::make_unique<PrefixBuild>(
        parts_->prefixes.start(*group.config, group.key.second, batch_tokens_));
  }
  Status status = group.build->step();
  unit->built = group.build->result();
  return status;
}

Status JobStages::run_together(Unit* unit) const {
  std::vector<Row> rows;
  for (const JobPointer& job : unit->jobs) rows.push_back(job->rows.front());
  std::vector<size_t> indices(rows.size());
  std::iota(indices.begin(), indices.end(), size_t{0});
  std::vector<Result<TurnScorer::TurnScores>> scores(rows.size(), TurnScorer::TurnScores{});
  Status status = parts_->turns.score_together(*unit->group->prefix, rows, indices, &scores);
  if (!status.ok()) return status;
  for (size_t i = 0; i < rows.size(); ++i) {
    Job* job = unit->jobs[i].get();
    Status ended = guarded<Status>([&] { return end_pass(std::move(scores[i]), job); });
    if (!ended.ok()) job->answer = Result<Score>(std::move(ended));
  }
  return status;
}

Status JobStages::run_next_row(Unit* unit) const {
  Job& job = *unit->jobs.front();
  if (job.row_by_row == nullptr) {
    job.row_by_row = std::make_unique<RowByRow>(&parts_->turns, *unit->group->prefix, job.rows);
  }
  if (Status bad = job.row_by_row->step(); !bad.ok()) return bad;
  ++job.n_rows_run;
  if (!job.row_by_row->is_done()) return Status::success();
  TurnScorer::TurnScores scores = job.row_by_row->take_scores();
  job.row_by_row.reset();
  return end_pass(std::move(scores), &job);
}

Status JobStages::run_incremental(Unit* unit) const {
  Job& job = *unit->jobs.front();
  const RunStart start{&job.config_blocks->all_key, unit->group->prefix};
  return end_pass(parts_->incremental.score(start, job.conversation, job.options.is_growing), &job);
}

Status JobStages::run_fast(Unit* unit) const {
  Job& job = *unit->jobs.front();
  if (job.fast == nullptr) {
    job.fast = std::make_unique<FastExplanation>(parts_->fast.start(
        job.config_blocks.get(), unit->group->prefix, job.config.threshold, &job.conversation));
  }
  if (Status bad = job.fast->step(); !bad.ok()) return bad;
  if (!job.fast->is_done()) return Status::success();
  if (!job.score.has_value()) {
    job.score =
        make_score(job.fast->turn_scores(), job.config.threshold, job.conversation.n_tokens);
  }
  job.score->rules = job.fast->rule_scores();
  job.answer = Result<Score>(std::move(*job.score));
  return Status::success();
}

Status JobStages::end_pass(Result<TurnScorer::TurnScores> scores, Job* job) const {
  if (!scores.ok()) return scores.status();
  const double threshold = job->config.threshold;
  if (job->rule == kWholeConfig) {
    job->score = make_score(std::move(scores).value(), threshold, job->conversation.n_tokens);
  } else {
    job->score->rules.push_back(make_rule_score(job->rule, scores.value(), threshold));
  }
  if (explains_fast(job->options, job->config.rules.size())) {  // after reused turns
    job->explains_fast = true;
    return Status::success();
  }
  const size_t next = job->rule == kWholeConfig ? 0 : job->rule + 1;
  if (job->options.explain != Explain::kNone && next < job->config.rules.size())
    return begin_pass(next, job);
  job->answer = Result<Score>(std::move(*job->score));
  return Status::success();
}

Status JobStages::begin_pass(size_t rule, Job* job) const {
  job->rule = rule;
  job->n_rows_run = 0;
  job->key_blocks = job->config_blocks;
  size_t part = rule;
  if (rule != kWholeConfig && parts_->layout.is_causal) {
    // There a rule alone is a config that holds this rule alone.
    Result<std::shared_ptr<const ConfigBlocks>> alone =
        parts_->configs.render({job->config.rules[rule]});
    if (!alone.ok()) return alone.status();
    job->key_blocks = std::move(alone).value();
    part = kWholeConfig;
  }
  job->key = {job->key_blocks->all_key, part};
  job->known_prefix = parts_->prefixes.start(*job->key_blocks, part, batch_tokens_).result();
  return Status::success();
}

}  // namespace csrm
