// The threads of a Scheduler: they take engine calls from the queue, run them, and answer jobs,
// each exactly once. Bounds, deadlines, cancellation, shutdown and counts are here.
// Not: the order (job_queue.h) or what an engine call does (job_stages.h, given as a function, so
// that tests run without an engine). One lock guards everything; neither an engine call nor a
// callback is ever made under it. There is one thread more than engine calls at a time: a thread
// that ends a call answers its jobs itself, without a hand-over, while the spare one goes on.
#ifndef CSRM_SRC_WORKERS_H_
#define CSRM_SRC_WORKERS_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "csrm/scheduler.h"
#include "job_queue.h"

namespace csrm {

// One engine call, outside the lock: `answer` of each job that is at its end, or of a unit without
// jobs `built` and `failure`. Must not throw.
using RunUnit = std::function<void(Unit*)>;

class Workers {
 public:
  // Starts nothing yet.
  Workers(const SchedulerOptions& options, RunUnit run);

  // Starts the threads, which keep `workers` alive. Throws std::system_error where there is none.
  static void start(const std::shared_ptr<Workers>& workers);

  SchedulerTime now() const { return options_.now ? options_.now() : SchedulerTime::clock::now(); }

  // Whether a job may come at all, asked before it is tokenised. Errors: Overloaded, Cancelled.
  Status check_open();
  // Gives `job` its ticket and its place in the queue. Errors: those and DeadlineExceeded.
  Result<uint64_t> submit(JobPointer job);
  bool cancel(uint64_t ticket);
  // See Scheduler. False from a worker's thread, which then works on to its end.
  bool shutdown();
  // Lets the threads end on their own, after such a shutdown.
  void detach();
  SchedulerStats stats();

 private:
  void work();
  // Both with the lock held, which they let go for a while. True if there was something to do.
  bool answer_ended(std::unique_lock<std::mutex>* lock);
  bool run_next(std::unique_lock<std::mutex>* lock);
  bool withdraw_locked(uint64_t ticket);
  void end_locked(std::vector<JobPointer> jobs, const Status& status);
  void wait(std::unique_lock<std::mutex>* lock);
  void count_start_locked(const Unit& unit);
  Status check_open_locked(size_t n_tokens);

  const SchedulerOptions options_;
  const RunUnit run_;
  std::mutex mutex_;
  std::condition_variable changed_;
  JobQueue queue_;
  std::vector<JobPointer> ended_;     // answered, their callbacks to be called
  size_t n_held_ = 0;                 // accepted, callback not yet called
  int n_calls_ = 0;                   // engine calls in progress
  std::map<uint64_t, bool> running_;  // tickets in them; true: withdrawn since
  bool is_stopping_ = false;
  uint64_t last_ticket_ = 0;
  SchedulerStats stats_;
  std::mutex threads_mutex_;
  std::vector<std::thread> threads_;
};

}  // namespace csrm

#endif  // CSRM_SRC_WORKERS_H_
