// The stages of docs/datapath.md as a Scheduler runs them: a request -> a job, in the submitter's
// thread; then one engine call after another, in a worker's.
// Not: the stages themselves, which are the Scorer's, and not which call comes next (job_queue.h).
#ifndef CSRM_SRC_JOB_STAGES_H_
#define CSRM_SRC_JOB_STAGES_H_

#include <memory>

#include "csrm/scheduler.h"
#include "csrm/scorer.h"
#include "job.h"
#include "scorer_impl.h"

namespace csrm {

class JobStages {
 public:
  // batch_tokens: of a call that encodes rules.
  JobStages(std::shared_ptr<const Scorer> scorer, size_t batch_tokens)
      : scorer_(std::move(scorer)), parts_(scorer_->impl_.get()), batch_tokens_(batch_tokens) {}

  // Checks and tokenises the request and looks for its prefix in the cache. Thread-safe.
  // Errors: those of Scorer::score but the engine's.
  Result<JobPointer> prepare(ScoreRequest request, Scheduler::Callback callback) const;

  // Makes the engine call of `unit` and sets the answers of jobs that are at their end. Thread-safe
  // for different units.
  void run(Unit* unit) const noexcept;

 private:
  Status build_prefix(Unit* unit) const;
  Status run_together(Unit* unit) const;
  Status run_next_row(Unit* unit) const;
  // A conversation whose turns are reused: all that is new of it, in one unit.
  Status run_incremental(Unit* unit) const;
  // One step of a fast explanation, which is a call of its own, or a few short ones.
  Status run_fast(Unit* unit) const;
  // Takes the scores under the prefix that `job` stands at, and turns to the next rule or ends it.
  Status end_pass(Result<TurnScorer::TurnScores> scores, Job* job) const;
  Status begin_pass(size_t rule, Job* job) const;

  std::shared_ptr<const Scorer> scorer_;
  Scorer::Impl* parts_;
  size_t batch_tokens_;
};

}  // namespace csrm

#endif  // CSRM_SRC_JOB_STAGES_H_
