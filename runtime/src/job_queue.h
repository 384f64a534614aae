// Waiting jobs -> the next engine call: which jobs run first and which of them run together.
// Not: threads, locks or clocks (workers.h): the same calls give the same order. A call looks at
// every waiting job, which for a thousand of them costs microseconds beside an engine call.
//
//   due       A job is due at its deadline, or some time after it began to wait if that is before:
//             `patience` for a row of kMaxRowTokens, in proportion less for a shorter one. The job
//             due first runs first, so short ones pass long ones that came a little earlier, and
//             nothing passes what came `patience` before it: nothing starves. A job of several
//             calls begins to wait anew after each of them.
//   quick     A job of a single call whose prefix is at hand is quick; jobs of several rows or with
//             explain, and calls that encode a prefix, are slow. After a slow call a quick job runs
//             next if one waits: it never stands behind more than one slow call.
//   together  Jobs of one row and the same prefix share a call with the job due first, nearest
//             length first, while rows x longest keeps to batch_tokens and padding is at most a
//             quarter of the real tokens, or kCallTokens for each call saved.
//   at once   A job never waits for company: a call takes what is there.
#ifndef CSRM_SRC_JOB_QUEUE_H_
#define CSRM_SRC_JOB_QUEUE_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "job.h"

namespace csrm {

struct QueueRules {
  size_t batch_tokens;
  std::chrono::nanoseconds patience;
  size_t max_begun;  // jobs of several rows that are begun at a time
};

class JobQueue {
 public:
  // What an engine call costs beside its tokens, in tokens: 15 of csrm-mini (docs/scheduler.md).
  static constexpr size_t kCallTokens = 12;

  explicit JobQueue(const QueueRules& rules) : rules_(rules) {}

  // Takes a job that begins to wait for its next call at `now`.
  void add(JobPointer job, SchedulerTime now);

  // The call to run next, its jobs taken out, or nothing. Every unit goes back to finish().
  std::optional<Unit> next();

  // Ends a unit that has been run at `now`: jobs without an answer wait again, those with one are
  // returned, and so are those that waited for a prefix that failed.
  std::vector<JobPointer> finish(Unit unit, SchedulerTime now);

  // Takes out the jobs whose deadline is before `now`.
  std::vector<JobPointer> take_expired(SchedulerTime now);
  // Takes out the job with this ticket; null if it does not wait here.
  JobPointer take(uint64_t ticket);
  std::vector<JobPointer> take_all();

  size_t size() const { return waiting_.size(); }
  SchedulerTime first_deadline() const;  // of those that wait; max() if there is none

 private:
  bool is_slow(const Job& job) const { return !job.is_quick || job.group->prefix == nullptr; }
  bool may_run(const Job& job) const;
  size_t choose() const;  // an index into waiting_, or its size
  void add_company(Unit* unit);
  JobPointer remove_at(size_t index);
  void forget(const Job& job);
  template <typename Condition>
  std::vector<JobPointer> take_if(const Condition& condition);
  std::shared_ptr<Group> group_of(const Job& job);

  const QueueRules rules_;
  std::vector<JobPointer> waiting_;  // in no order
  std::map<GroupKey, std::weak_ptr<Group>> groups_;
  size_t n_begun_ = 0;  // waiting or in a unit
  bool last_was_slow_ = false;
};

}  // namespace csrm

#endif  // CSRM_SRC_JOB_QUEUE_H_
