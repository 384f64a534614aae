// A scheduler's threads with an engine that the test plays: batches, bounds, expiry, cancellation,
// shutdown, and each callback exactly once. Also run under -DCSRM_SANITIZE=thread.
// Not: the order (test_job_queue.cc) or scores (tests/python/test_scheduler.py).
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "check.h"
#include "jobs.h"
#include "workers.h"

namespace {

using csrm::Code;
using csrm::JobPointer;
using csrm::Result;
using csrm::SchedulerTime;
using csrm::Score;
using csrm::Unit;
using csrm::Workers;
using csrm_test::at_ms;
using csrm_test::due_at;
using csrm_test::job_of;
using csrm_test::without_prefix;
using std::chrono::milliseconds;

// A clock and an engine in the test's hands: calls stop at a gate until it is opened.
struct Play {
  std::mutex mutex;
  std::condition_variable changed;
  bool is_open = true;
  int n_inside = 0;
  int n_calls = 0;
  std::vector<size_t> sizes;  // jobs in each call
  // Threads that end on their own look at the clock after this is gone.
  const std::shared_ptr<std::atomic<int64_t>> clock = std::make_shared<std::atomic<int64_t>>(0);
  std::atomic<int64_t>& now_ms = *clock;
  std::shared_ptr<Workers> workers;

  explicit Play(csrm::SchedulerOptions options = {}) {
    options.batch_tokens = 512;
    options.now = [kept = clock] { return at_ms(static_cast<int>(kept->load())); };
    workers = std::make_shared<Workers>(options, [this](Unit* unit) { run(unit); });
    Workers::start(workers);
  }
  ~Play() {
    open(true);
    workers->shutdown();
  }

  void open(bool opened) {
    const std::lock_guard<std::mutex> lock(mutex);
    is_open = opened;
    changed.notify_all();
  }
  void wait_inside(int n) {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [&] { return n_inside >= n; });
  }
  void run(Unit* unit) {
    std::unique_lock<std::mutex> lock(mutex);
    ++n_inside;
    ++n_calls;
    sizes.push_back(unit->jobs.size());
    changed.notify_all();
    changed.wait(lock, [&] { return is_open; });
    --n_inside;
    if (unit->jobs.empty()) unit->built = std::make_shared<csrm::Prefix>();
    for (JobPointer& job : unit->jobs) {
      if (++job->n_rows_run < job->rows.size()) continue;
      Score score{};
      score.scored_tokens = job->conversation.n_tokens;
      job->answer = Result<Score>(score);
    }
  }
};

// Answers as they come, with a way to wait for them.
struct Answers {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::pair<int, Code>> list;  // (request, code), in order

  csrm::Scheduler::Callback of(int request) {
    return [this, request](Result<Score> score) {
      const std::lock_guard<std::mutex> lock(mutex);
      list.emplace_back(request, score.ok() ? Code::kOk : score.status().code);
      changed.notify_all();
    };
  }
  void wait(size_t n) {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [&] { return list.size() >= n; });
  }
  int count(Code code) {
    const std::lock_guard<std::mutex> lock(mutex);
    return static_cast<int>(
        std::count_if(list.begin(), list.end(), [&](const auto& a) { return a.second == code; }));
  }
};

Result<uint64_t> submit(Play* play, Answers* answers, int request, JobPointer job) {
  job->callback = answers->of(request);
  return play->workers->submit(std::move(job));
}

void test_workers_idle_request_runs_at_once_and_alone() {
  Answers answers;
  Play play;
  CHECK(submit(&play, &answers, 0, job_of(0, {40})).ok());
  answers.wait(1);
  CHECK(play.sizes == std::vector<size_t>{1} && answers.count(Code::kOk) == 1);
  const csrm::SchedulerStats stats = play.workers->stats();
  CHECK(stats.n_accepted == 1 && stats.n_finished == 1 && stats.n_batches == 1);
  CHECK(stats.real_tokens == 40 && stats.padded_tokens == 40 && stats.held_tokens == 0);
  CHECK(stats.n_queued == 0 && stats.n_running == 0);
}

void test_workers_what_queued_meanwhile_runs_together() {
  Answers answers;
  Play play;
  play.open(false);
  CHECK(submit(&play, &answers, 0, job_of(0, {40})).ok());
  play.wait_inside(1);
  for (int i = 1; i <= 3; ++i) CHECK(submit(&play, &answers, i, job_of(0, {40})).ok());
  csrm::SchedulerStats stats = play.workers->stats();
  CHECK(stats.n_queued == 3 && stats.n_running == 1 && stats.held_tokens == 160);
  play.now_ms = 70;
  play.open(true);
  answers.wait(4);
  CHECK((play.sizes == std::vector<size_t>{1, 3}));
  stats = play.workers->stats();
  CHECK(stats.queue_time == milliseconds(210) && stats.max_queue_time == milliseconds(70));
}

void test_workers_full_queue_is_overloaded_until_there_is_room() {
  csrm::SchedulerOptions options;
  options.max_requests = 3;
  options.max_tokens = 100;
  Answers answers;
  Play play(options);
  play.open(false);
  CHECK(submit(&play, &answers, 0, job_of(0, {400})).ok());  // alone: more tokens than the bound
  play.wait_inside(1);
  CHECK(submit(&play, &answers, 1, job_of(0, {1})).status().code == Code::kOverloaded);
  play.open(true);
  answers.wait(1);
  play.open(false);
  CHECK(submit(&play, &answers, 2, job_of(0, {10})).ok());
  play.wait_inside(1);
  CHECK(submit(&play, &answers, 3, job_of(0, {91})).status().code == Code::kOverloaded);
  CHECK(submit(&play, &answers, 4, job_of(0, {30})).ok());
  CHECK(submit(&play, &answers, 5, job_of(0, {30})).ok());
  CHECK(play.workers->check_open().code == Code::kOverloaded);
  CHECK(submit(&play, &answers, 6, job_of(0, {1})).status().code == Code::kOverloaded);
  play.open(true);
  answers.wait(4);
  CHECK(play.workers->check_open().ok());
  CHECK(answers.count(Code::kOk) == 4 && play.workers->stats().n_refused == 4);
}

void test_workers_deadline_passed_while_waiting_is_never_run() {
  Answers answers;
  Play play;
  play.open(false);
  CHECK(submit(&play, &answers, 0, due_at(job_of(0, {40}), 50)).ok());
  play.wait_inside(1);
  CHECK(submit(&play, &answers, 1, due_at(job_of(0, {40}), 80)).ok());
  CHECK(submit(&play, &answers, 2, due_at(job_of(0, {40}), 200)).ok());
  play.now_ms = 100;
  CHECK(submit(&play, &answers, 3, due_at(job_of(0, {40}), 90)).status().code ==
        Code::kDeadlineExceeded);
  play.open(true);
  answers.wait(3);
  CHECK(answers.count(Code::kDeadlineExceeded) == 1 && answers.count(Code::kOk) == 2);
  CHECK((play.sizes == std::vector<size_t>{1, 1}));
  CHECK(play.workers->stats().n_expired == 1);
}

void test_workers_deadline_on_the_real_clock_is_answered_during_an_engine_call() {
  std::mutex gate;
  gate.lock();
  const auto workers = std::make_shared<Workers>(csrm::SchedulerOptions{}, [&](Unit* unit) {
    const std::lock_guard<std::mutex> wait(gate);
    for (JobPointer& job : unit->jobs) job->answer = Result<Score>(Score{});
  });
  Workers::start(workers);
  Answers answers;
  JobPointer first = job_of(0, {40}), second = job_of(0, {40});
  first->callback = answers.of(0);
  second->callback = answers.of(1);
  CHECK(workers->submit(std::move(first)).ok());
  while (workers->stats().n_running == 0) std::this_thread::yield();
  second->deadline = SchedulerTime::clock::now() + milliseconds(200);  // not over before it is in
  CHECK(workers->submit(std::move(second)).ok());
  answers.wait(1);  // while the first is in its call
  CHECK(answers.list.front().first == 1 && answers.list.front().second == Code::kDeadlineExceeded);
  gate.unlock();
  answers.wait(2);
  workers->shutdown();
}

// Found by UBSan: the time to wake at, a moment behind the deadline, was beyond the clock's end.
void test_workers_deadline_at_the_end_of_the_clock_is_no_deadline() {
  std::mutex gate;
  gate.lock();
  const auto workers = std::make_shared<Workers>(csrm::SchedulerOptions{}, [&](Unit* unit) {
    const std::lock_guard<std::mutex> wait(gate);
    for (JobPointer& job : unit->jobs) job->answer = Result<Score>(Score{});
  });
  Workers::start(workers);
  Answers answers;
  for (int i = 0; i < 2; ++i) {
    JobPointer job = job_of(0, {40});
    job->callback = answers.of(i);
    job->deadline = SchedulerTime::max() - std::chrono::nanoseconds(1);
    CHECK(workers->submit(std::move(job)).ok());
    while (workers->stats().n_running == 0) std::this_thread::yield();
  }
  std::this_thread::sleep_for(milliseconds(5));  // the spare thread looks at the second one
  gate.unlock();
  answers.wait(2);
  CHECK(answers.count(Code::kOk) == 2);
  workers->shutdown();
}

void test_workers_cancel_takes_what_waits_and_lets_a_last_call_end() {
  Answers answers;
  Play play;
  play.open(false);
  const Result<uint64_t> runs = submit(&play, &answers, 0, job_of(0, {40}));
  play.wait_inside(1);
  const Result<uint64_t> waits = submit(&play, &answers, 1, job_of(0, {40}));
  CHECK(!play.workers->cancel(runs.value()));
  CHECK(play.workers->cancel(waits.value()));
  CHECK(!play.workers->cancel(waits.value()) && !play.workers->cancel(12345));
  answers.wait(1);  // by the spare thread, during the call
  CHECK(answers.count(Code::kCancelled) == 1);
  play.open(true);
  answers.wait(2);
  CHECK(answers.count(Code::kOk) == 1 && play.workers->stats().n_cancelled == 1);
}

void test_workers_cancel_during_a_call_ends_a_long_request_after_it() {
  Answers answers;
  Play play;
  play.open(false);
  const Result<uint64_t> runs = submit(&play, &answers, 0, job_of(0, {40, 40, 40}));
  play.wait_inside(1);
  CHECK(!play.workers->cancel(runs.value()));
  play.open(true);
  answers.wait(1);
  CHECK(answers.count(Code::kCancelled) == 1 && play.n_calls == 1);
}

void test_workers_shutdown_ends_calls_and_cancels_the_rest() {
  Answers answers;
  Play play;
  play.open(false);
  CHECK(submit(&play, &answers, 0, job_of(0, {40})).ok());
  play.wait_inside(1);
  for (int i = 1; i <= 5; ++i) CHECK(submit(&play, &answers, i, job_of(0, {40, 40})).ok());
  std::thread stopper([&] { play.workers->shutdown(); });
  answers.wait(5);
  CHECK(answers.count(Code::kCancelled) == 5);
  CHECK(submit(&play, &answers, 6, job_of(0, {40})).status().code == Code::kCancelled);
  play.open(true);
  stopper.join();
  CHECK(answers.list.size() == 6 && answers.count(Code::kOk) == 1);
}

void test_workers_long_request_in_a_call_at_shutdown_is_cancelled_after_it() {
  Answers answers;
  Play play;
  play.open(false);
  CHECK(submit(&play, &answers, 0, job_of(0, {40, 40, 40})).ok());
  play.wait_inside(1);
  std::thread stopper([&] { play.workers->shutdown(); });
  while (play.workers->check_open().ok()) std::this_thread::yield();
  play.open(true);
  stopper.join();
  CHECK(play.n_calls == 1 && answers.count(Code::kCancelled) == 1);
}

void test_workers_callback_may_submit_cancel_and_shut_down() {
  Answers answers;
  Play play;
  JobPointer job = job_of(0, {40});
  job->callback = [&](Result<Score>) {
    CHECK(submit(&play, &answers, 1, job_of(0, {40})).ok());
    answers.wait(1);  // of the other thread
    CHECK(!play.workers->cancel(1));
    CHECK(!play.workers->shutdown());
    answers.of(0)(Result<Score>(Score{}));
  };
  CHECK(play.workers->submit(std::move(job)).ok());
  answers.wait(2);
  CHECK(play.workers->check_open().code == Code::kCancelled);
  CHECK(play.workers->shutdown() && play.workers.use_count() == 1);
}

void test_workers_dropped_in_a_callback_end_on_their_own() {
  Answers answers;
  std::weak_ptr<Workers> threads;
  {
    Play play;
    threads = play.workers;
    JobPointer job = job_of(0, {40});
    job->callback = [&](Result<Score>) {
      CHECK(!play.workers->shutdown());
      play.workers->detach();
      answers.of(0)(Result<Score>(Score{}));
    };
    CHECK(play.workers->submit(std::move(job)).ok());
    answers.wait(1);
    play.workers->shutdown();
  }
  while (!threads.expired()) std::this_thread::yield();
}

void test_workers_many_threads_get_every_answer_once(int n_workers) {
  constexpr int kThreads = 8, kEach = 200;
  csrm::SchedulerOptions options;
  options.n_workers = n_workers;
  options.max_requests = kThreads * kEach;
  options.max_tokens = 1u << 30;
  std::vector<std::atomic<int>> n_calls(kThreads * kEach);
  std::atomic<int> n_refused{0}, n_withdrawn{0};
  {
    Play play(options);
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < kEach; ++i) {
          const int request = t * kEach + i;
          std::vector<size_t> lengths(i % 7 == 0 ? 3 : 1, static_cast<size_t>(10 + i % 90));
          JobPointer job = job_of(0, lengths, static_cast<uint8_t>(i % 5));
          if (i % 5 == 4) job = without_prefix(std::move(job));
          if (i % 11 == 0) job->deadline = at_ms(i % 2 == 0 ? 5 : 100000);
          job->callback = [&, request](Result<Score>) { ++n_calls[request]; };
          const Result<uint64_t> ticket = play.workers->submit(std::move(job));
          if (!ticket.ok()) {
            ++n_refused;
            ++n_calls[request];
          } else if (i % 13 == 0 && play.workers->cancel(ticket.value())) {
            ++n_withdrawn;
          }
          if (i == kEach / 2) play.now_ms = 10;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    while (play.workers->stats().held_tokens > 0) std::this_thread::yield();
    const csrm::SchedulerStats stats = play.workers->stats();
    CHECK(stats.n_accepted ==
          stats.n_finished + stats.n_failed + stats.n_expired + stats.n_cancelled);
    CHECK(stats.n_accepted + static_cast<uint64_t>(n_refused) == kThreads * kEach);
    // More where cancel() came during a call that was not the last one.
    CHECK(stats.n_cancelled >= static_cast<uint64_t>(n_withdrawn) && stats.n_failed == 0);
    CHECK(stats.n_queued == 0 && stats.n_running == 0);
  }
  CHECK(std::all_of(n_calls.begin(), n_calls.end(), [](const auto& n) { return n == 1; }));
}

}  // namespace

int main() {
  test_workers_idle_request_runs_at_once_and_alone();
  test_workers_what_queued_meanwhile_runs_together();
  test_workers_full_queue_is_overloaded_until_there_is_room();
  test_workers_deadline_passed_while_waiting_is_never_run();
  test_workers_deadline_on_the_real_clock_is_answered_during_an_engine_call();
  test_workers_deadline_at_the_end_of_the_clock_is_no_deadline();
  test_workers_cancel_takes_what_waits_and_lets_a_last_call_end();
  test_workers_cancel_during_a_call_ends_a_long_request_after_it();
  test_workers_shutdown_ends_calls_and_cancels_the_rest();
  test_workers_long_request_in_a_call_at_shutdown_is_cancelled_after_it();
  test_workers_callback_may_submit_cancel_and_shut_down();
  test_workers_dropped_in_a_callback_end_on_their_own();
  test_workers_many_threads_get_every_answer_once(1);
  test_workers_many_threads_get_every_answer_once(3);
  return csrm_test::summary();
}
