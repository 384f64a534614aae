// csrm::Scheduler: many requests, one engine. Requests from any thread are queued, cut into engine
// calls and run by worker threads, the most urgent first, several short ones in one call.
// Not: HTTP, and not the scores themselves, which are those of the Scorer.
//
//   auto scheduler = csrm::Scheduler::create(scorer, {});
//   auto ticket = scheduler.value()->submit(std::move(request), [](csrm::Result<csrm::Score> score)
//   {
//     if (score.ok() && score.value().verdict == csrm::Verdict::kCompliant) forward();
//   });
//
// Order, batching and bounds are described in docs/scheduler.md. Nothing here throws.
#ifndef CSRM_SCHEDULER_H_
#define CSRM_SCHEDULER_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "csrm/scorer.h"
#include "csrm/status.h"
#include "csrm/types.h"
#include "csrm/visibility.h"

namespace csrm {

using SchedulerTime = std::chrono::steady_clock::time_point;

struct SchedulerOptions {
  // Engine calls at a time. One is enough: the engine's own threads share the work of a call.
  int n_workers = 1;
  // Bounds of what is accepted and not yet answered; beyond them a request is Overloaded. A request
  // of more than max_tokens conversation tokens is accepted when there is no other.
  size_t max_requests = 1024;
  size_t max_tokens = 65536;
  // Padded tokens of requests that share a call, and of a call that encodes rules; 0 = 128 for each
  // engine thread, at least 256.
  size_t batch_tokens = 0;
  // A request is due at its deadline, or this long after it was submitted if that is before (less
  // for a short one); the one due first runs first. So nothing waits behind requests that are
  // submitted this much later.
  std::chrono::milliseconds patience{1000};
  // Conversations of several engine calls that are begun and not ended. Each keeps keys and values
  // of its tokens (ScorerInfo::cache_token_bytes a token).
  int max_begun = 4;
  // The clock of deadlines; null = std::chrono::steady_clock::now. Called from any thread, and, if
  // a callback destroyed the scheduler, until that callback's thread has ended.
  std::function<SchedulerTime()> now;
};

struct ScoreRequest {
  Config config;
  Conversation conversation;
  ScoreOptions options;
  SchedulerTime deadline = SchedulerTime::max();
};

// Counts since the scheduler was made, but for those marked "now". A prefix call encodes rules.
struct SchedulerStats {
  size_t n_queued = 0;          // now: requests that wait for an engine call
  size_t n_running = 0;         // now: requests in an engine call
  size_t held_tokens = 0;       // now: conversation tokens of both
  uint64_t n_accepted = 0;      // each is answered once: finished, failed, expired or cancelled
  uint64_t n_refused = 0;       // Overloaded, or the deadline had passed when it came
  uint64_t n_finished = 0;      // with a score
  uint64_t n_failed = 0;        // with an error of the engine or the model
  uint64_t n_expired = 0;       // DeadlineExceeded
  uint64_t n_cancelled = 0;     // Cancelled, by cancel() or by a shutdown
  uint64_t n_batches = 0;       // engine calls for rows of conversations
  uint64_t n_rows = 0;          // rows in them
  uint64_t real_tokens = 0;     // tokens of these rows
  uint64_t padded_tokens = 0;   // rows x longest, so real tokens and padding
  uint64_t n_prefix_calls = 0;  // engine calls for rules
  std::chrono::nanoseconds queue_time{0};      // sum over requests, submission to first call
  std::chrono::nanoseconds max_queue_time{0};  // of one request
};

// All functions but create and the destructor may be called from several threads at once, also from
// a callback. After a fork the child has no workers: there submit fails, and nothing else acts.
class CSRM_API Scheduler {
 public:
  using Callback = std::function<void(Result<Score>)>;

  // A scheduler with its workers running. It keeps `scorer`, which may be used beside it.
  // Errors: BadArgument (an option outside its range, no scorer), LimitExceeded (out of memory or
  // threads).
  static Result<std::unique_ptr<Scheduler>> create(std::shared_ptr<const Scorer> scorer,
                                                   const SchedulerOptions& options) noexcept;
  // shutdown().
  ~Scheduler();

  // Takes a request and returns its ticket. Config and conversation are tokenised here, in the
  // caller's thread; nothing is encoded. An accepted request is answered by exactly one call of
  // `callback`, from a worker thread that holds no lock, possibly before submit returns. The
  // callback must not throw. On an error it is not called.
  // The score is that of Scorer::score for the same input, up to the rounding of a batch.
  // Errors: Overloaded; DeadlineExceeded (already passed); Cancelled (after a shutdown);
  // Unsupported (in the child of a fork); those of Scorer::score for config and conversation.
  // Errors given to the callback: DeadlineExceeded, Cancelled, EngineFailed, NonFinite, Internal,
  // LimitExceeded (out of memory).
  Result<uint64_t> submit(ScoreRequest request, Callback callback) noexcept;

  // Withdraws a request that waits, also between two engine calls: true, and its callback gets
  // Cancelled. False if it is answered or unknown, or in an engine call: if that is not its last
  // one, its callback then gets Cancelled too, else its answer stands.
  bool cancel(uint64_t ticket) noexcept;

  // Stops accepting, lets engine calls that run come to their end, and answers Cancelled to what is
  // then not done. True once all callbacks have returned and the threads are gone. From a callback
  // it returns false at once: that thread has callbacks left to call, so do not end the process
  // before another shutdown, from another thread, has returned true.
  bool shutdown() noexcept;

  SchedulerStats stats() const noexcept;

 private:
  struct Impl;
  explicit Scheduler(std::unique_ptr<Impl> impl) noexcept;
  std::unique_ptr<Impl> impl_;
};

}  // namespace csrm

#endif  // CSRM_SCHEDULER_H_
