// Job: one accepted request of a Scheduler between its engine calls; and Group, the jobs that read
// the same prefix and may share a call.
// Not: their order (job_queue.h), the threads (workers.h) or the engine calls (job_stages.h).
// A job belongs to whoever holds it: the queue while it waits (under the workers' lock), the worker
// that took it otherwise.
#ifndef CSRM_SRC_JOB_H_
#define CSRM_SRC_JOB_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "batch.h"
#include "conversation_rows.h"
#include "csrm/scheduler.h"
#include "fast_explain.h"
#include "prefix_encoder.h"
#include "turn_scores.h"

namespace csrm {

// A prefix by what it is made of: the config's tokens, and all its rules or one of them.
using GroupKey = std::pair<CacheKey, size_t>;

struct Group {
  GroupKey key;
  std::shared_ptr<const ConfigBlocks> config;
  std::shared_ptr<const Prefix> prefix;  // null until built; then constant
  bool is_building = false;              // a worker is in a call that encodes it
  std::unique_ptr<PrefixBuild> build;    // of that worker; kept from call to call
};

struct Job {
  // Fixed when it is submitted.
  uint64_t ticket = 0;
  SchedulerTime submitted{};
  SchedulerTime deadline = SchedulerTime::max();
  Scheduler::Callback callback;
  Config config;
  ScoreOptions options;
  std::shared_ptr<const ConfigBlocks> config_blocks;
  ConversationBlocks conversation;
  std::vector<Row> rows;     // of `conversation`
  bool shares_call = false;  // of one row, which may stand beside rows of other jobs
  bool is_quick = false;     // one engine call is all it takes

  // What its next engine call is about.
  GroupKey key;
  std::shared_ptr<const ConfigBlocks> key_blocks;  // that `key` is about
  std::shared_ptr<const Prefix> known_prefix;      // of `key`, if the cache had it
  std::shared_ptr<Group> group;                    // of `key`; set by the queue
  size_t rule = kWholeConfig;                      // being explained
  size_t n_rows_run = 0;                           // under this prefix
  std::unique_ptr<RowByRow> row_by_row;            // of several rows, once begun
  bool explains_fast = false;                      // what is left is steps of `fast`
  std::unique_ptr<FastExplanation> fast;           // then, once begun
  std::optional<Score> score;                      // so far, rules being added
  bool has_run = false;                            // its first engine call is over or in progress

  // The queue's.
  SchedulerTime due{};
  bool is_begun = false;  // of several rows, and one has been in a unit

  std::optional<Result<Score>> answer;  // ends the job

  const Row& next_row() const { return rows[n_rows_run]; }
};

using JobPointer = std::unique_ptr<Job>;

// One engine call: rows of `jobs` under the group's prefix, or, if there are none, the next part of
// that prefix.
struct Unit {
  std::shared_ptr<Group> group;
  std::vector<JobPointer> jobs;

  // Set by whoever ran it, if it encoded a part of the prefix.
  std::shared_ptr<const Prefix> built;  // null: parts are missing yet
  Status failure;                       // of the encoding
};

}  // namespace csrm

#endif  // CSRM_SRC_JOB_H_
