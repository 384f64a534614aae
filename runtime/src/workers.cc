#include "workers.h"

#include <algorithm>
#include <string>
#include <utility>

namespace csrm {
namespace {

Status overloaded(const std::string& what, size_t value, size_t limit, const char* option) {
  return {Code::kOverloaded, what + " " + std::to_string(value) + "; limit is " +
                                 std::to_string(limit) + " (SchedulerOptions::" + option +
                                 "); try again later or elsewhere"};
}

Status expired() {
  return {Code::kDeadlineExceeded,
          "the deadline passed before the request was scored; give it more time or send less"};
}

Status stopped() { return {Code::kCancelled, "the scheduler has been shut down"}; }

// Of a worker's thread.
thread_local const Workers* working_for = nullptr;

void count(const Job& job, SchedulerStats* stats) {
  if (job.answer->ok()) {
    ++stats->n_finished;
  } else if (job.answer->status().code == Code::kDeadlineExceeded) {
    ++stats->n_expired;
  } else if (job.answer->status().code == Code::kCancelled) {
    ++stats->n_cancelled;
  } else {
    ++stats->n_failed;
  }
}

}  // namespace

Workers::Workers(const SchedulerOptions& options, RunUnit run)
    : options_(options),
      run_(std::move(run)),
      queue_({options.batch_tokens, options.patience, static_cast<size_t>(options.max_begun)}) {}

void Workers::start(const std::shared_ptr<Workers>& workers) {
  const std::lock_guard<std::mutex> lock(workers->threads_mutex_);
  for (int i = 0; i < workers->options_.n_workers + 1; ++i) {
    workers->threads_.emplace_back([workers] { workers->work(); });
  }
}

Status Workers::check_open_locked(size_t n_tokens) {
  if (is_stopping_) return stopped();
  if (n_held_ >= options_.max_requests) {
    ++stats_.n_refused;
    return overloaded("requests waiting or running:", n_held_, options_.max_requests,
                      "max_requests");
  }
  const size_t n_all = stats_.held_tokens + n_tokens;
  if (n_held_ > 0 && n_all > options_.max_tokens) {
    ++stats_.n_refused;
    return overloaded("tokens waiting or running, with this request:", n_all, options_.max_tokens,
                      "max_tokens");
  }
  return Status::success();
}

Status Workers::check_open() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return check_open_locked(1);
}

Result<uint64_t> Workers::submit(JobPointer job) {
  const SchedulerTime at = now();
  const std::lock_guard<std::mutex> lock(mutex_);
  const size_t n_tokens = job->conversation.n_tokens;
  if (Status bad = check_open_locked(n_tokens); !bad.ok()) return bad;
  if (job->deadline <= at) {
    ++stats_.n_refused;
    return expired();
  }
  const uint64_t ticket = ++last_ticket_;
  job->ticket = ticket;
  job->submitted = at;
  const bool has_deadline = job->deadline != SchedulerTime::max();
  queue_.add(std::move(job), at);
  ++stats_.n_accepted;
  ++n_held_;
  stats_.held_tokens += n_tokens;
  // Else whoever ends a call looks here before it sleeps.
  if (n_calls_ < options_.n_workers || has_deadline) changed_.notify_one();
  return ticket;
}

bool Workers::cancel(uint64_t ticket) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (const auto found = running_.find(ticket); found != running_.end()) found->second = true;
  return withdraw_locked(ticket);
}

bool Workers::withdraw_locked(uint64_t ticket) {
  JobPointer job = queue_.take(ticket);
  if (job == nullptr) return false;
  std::vector<JobPointer> jobs;
  jobs.push_back(std::move(job));
  end_locked(std::move(jobs), {Code::kCancelled, "the request was withdrawn"});
  changed_.notify_one();
  return true;
}

bool Workers::shutdown() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_stopping_ = true;
    end_locked(queue_.take_all(), stopped());
    changed_.notify_all();
  }
  if (working_for == this) return false;  // a thread cannot wait for itself
  const std::lock_guard<std::mutex> lock(threads_mutex_);
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  return true;
}

void Workers::detach() {
  const std::lock_guard<std::mutex> lock(threads_mutex_);
  for (std::thread& thread : threads_) thread.detach();
  threads_.clear();
}

SchedulerStats Workers::stats() {
  const std::lock_guard<std::mutex> lock(mutex_);
  SchedulerStats stats = stats_;
  stats.n_queued = queue_.size();
  stats.n_running = running_.size();
  return stats;
}

void Workers::work() {
  working_for = this;
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    if (answer_ended(&lock) || run_next(&lock)) continue;
    if (is_stopping_ && queue_.size() == 0) return;
    wait(&lock);
  }
}

void Workers::wait(std::unique_lock<std::mutex>* lock) {
  constexpr std::chrono::microseconds kBehind(1);
  const SchedulerTime first = queue_.first_deadline();
  if (options_.now || first > SchedulerTime::max() - kBehind) {
    changed_.wait(*lock);
  } else {
    changed_.wait_until(*lock, first + kBehind);
  }
}

bool Workers::answer_ended(std::unique_lock<std::mutex>* lock) {
  end_locked(queue_.take_expired(now()), expired());
  if (ended_.empty()) return false;
  std::vector<JobPointer> ended;
  ended.swap(ended_);
  for (const JobPointer& job : ended) {
    count(*job, &stats_);
    --n_held_;
    stats_.held_tokens -= job->conversation.n_tokens;
  }
  lock->unlock();
  for (JobPointer& job : ended) {
    job->callback(std::move(*job->answer));
    job.reset();  // with what it holds, outside the lock
  }
  ended.clear();
  lock->lock();
  return true;
}

bool Workers::run_next(std::unique_lock<std::mutex>* lock) {
  if (n_calls_ == options_.n_workers) return false;
  std::optional<Unit> unit = queue_.next();
  if (!unit.has_value()) return false;
  count_start_locked(*unit);
  std::vector<uint64_t> tickets;
  for (const JobPointer& job : unit->jobs) tickets.push_back(job->ticket);
  for (const uint64_t ticket : tickets) running_[ticket] = false;
  ++n_calls_;
  lock->unlock();
  run_(&*unit);
  lock->lock();
  --n_calls_;
  for (JobPointer& job : queue_.finish(std::move(*unit), now())) ended_.push_back(std::move(job));
  for (const uint64_t ticket : tickets) {
    const auto running = running_.find(ticket);
    if (running->second) withdraw_locked(ticket);
    running_.erase(running);
  }
  if (is_stopping_) end_locked(queue_.take_all(), stopped());
  // This thread answers first; another may run what waits meanwhile.
  if (queue_.size() > 0) changed_.notify_one();
  return true;
}

void Workers::end_locked(std::vector<JobPointer> jobs, const Status& status) {
  for (JobPointer& job : jobs) {
    job->answer = Result<Score>(status);
    ended_.push_back(std::move(job));
  }
}

void Workers::count_start_locked(const Unit& unit) {
  if (unit.jobs.empty()) {
    ++stats_.n_prefix_calls;
    return;
  }
  const SchedulerTime at = now();
  size_t longest = 0;
  for (const JobPointer& job : unit.jobs) {
    const size_t length = job->next_row().n_tokens;
    longest = std::max(longest, length);
    stats_.real_tokens += length;
    if (job->has_run) continue;
    job->has_run = true;
    const std::chrono::nanoseconds waited = at - job->submitted;
    stats_.queue_time += waited;
    stats_.max_queue_time = std::max(stats_.max_queue_time, waited);
  }
  ++stats_.n_batches;
  stats_.n_rows += unit.jobs.size();
  stats_.padded_tokens += longest * unit.jobs.size();
}

}  // namespace csrm
