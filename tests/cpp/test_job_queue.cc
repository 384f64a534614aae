// The order of a scheduler's engine calls, on times that the test gives: deadlines, ageing, long
// beside short, batches and their padding, prefixes.
// Not: threads (test_workers.cc) or scores (tests/python/test_scheduler.py).
#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "check.h"
#include "job_queue.h"
#include "jobs.h"

namespace {

using csrm::Code;
using csrm::JobPointer;
using csrm::JobQueue;
using csrm::Result;
using csrm::SchedulerTime;
using csrm::Score;
using csrm::Unit;
using csrm_test::at_ms;
using csrm_test::config_key;
using csrm_test::due_at;
using csrm_test::job_of;
using csrm_test::without_prefix;

constexpr csrm::QueueRules kRules{512, std::chrono::milliseconds(1000), 2};

using Tickets = std::vector<uint64_t>;

Tickets tickets_of(const Unit& unit) {
  Tickets tickets;
  for (const JobPointer& job : unit.jobs) tickets.push_back(job->ticket);
  std::sort(tickets.begin(), tickets.end());
  return tickets;
}

// Runs the next unit as the engine would, at `now`; the tickets in it, none for a prefix call.
Tickets step(JobQueue* queue, SchedulerTime now, Tickets* ended = nullptr) {
  std::optional<Unit> unit = queue->next();
  if (!unit.has_value()) return {999};
  const Tickets tickets = tickets_of(*unit);
  if (unit->jobs.empty()) unit->built = std::make_shared<csrm::Prefix>();
  for (JobPointer& job : unit->jobs) {
    if (++job->n_rows_run == job->rows.size()) job->answer = Result<Score>(Score{});
  }
  for (const JobPointer& job : queue->finish(std::move(*unit), now)) {
    if (ended != nullptr) ended->push_back(job->ticket);
  }
  return tickets;
}

void test_queue_earliest_deadline_runs_first() {
  JobQueue queue(kRules);
  queue.add(due_at(job_of(1, {1024}), 900), at_ms(0));
  queue.add(due_at(job_of(2, {1024}), 300), at_ms(1));
  queue.add(job_of(3, {1024}), at_ms(2));  // no deadline: due at 1002
  queue.add(due_at(job_of(4, {1024}), 600), at_ms(3));
  for (const uint64_t expected : {2u, 4u, 1u, 3u}) {
    CHECK(step(&queue, at_ms(10)) == Tickets{expected});
  }
  CHECK(step(&queue, at_ms(10)) == Tickets{999} && queue.size() == 0);
}

void test_queue_patience_bounds_how_much_later_requests_overtake() {
  JobQueue queue(kRules);
  queue.add(job_of(1, {1024}), at_ms(0));
  // Urgent requests keep coming; those that come within the patience pass, later ones do not.
  queue.add(due_at(job_of(2, {1024}), 999), at_ms(990));
  CHECK(step(&queue, at_ms(991)) == Tickets{2});
  queue.add(due_at(job_of(3, {1024}), 1010), at_ms(1005));
  CHECK(step(&queue, at_ms(1006)) == Tickets{1});
  CHECK(step(&queue, at_ms(1007)) == Tickets{3});
}

void test_queue_short_requests_pass_long_ones_that_came_a_little_earlier() {
  JobQueue queue(kRules);
  queue.add(job_of(1, {1024}), at_ms(0));  // due at 1000
  queue.add(job_of(2, {64}), at_ms(100));  // due 62.5 after that
  CHECK(step(&queue, at_ms(101)) == Tickets{2});
  queue.add(job_of(3, {64}), at_ms(990));
  CHECK(step(&queue, at_ms(991)) == Tickets{1});
  CHECK(step(&queue, at_ms(992)) == Tickets{3});
}

void test_queue_equal_due_keeps_the_order_of_submission() {
  JobQueue queue(kRules);
  for (uint64_t ticket = 1; ticket <= 4; ++ticket) queue.add(job_of(ticket, {1024}), at_ms(0));
  for (uint64_t ticket = 1; ticket <= 4; ++ticket) {
    CHECK(step(&queue, at_ms(0)) == Tickets{ticket});
  }
}

void test_queue_short_requests_run_between_rows_of_a_long_one() {
  JobQueue queue(kRules);
  Tickets ended;
  queue.add(due_at(job_of(1, {1000, 1000, 1000}), 10), at_ms(0));  // the most urgent throughout
  queue.add(job_of(2, {1024}), at_ms(1));
  queue.add(job_of(3, {1024}), at_ms(1));
  for (const uint64_t expected : {1u, 2u, 1u, 3u, 1u}) {
    CHECK(step(&queue, at_ms(5), &ended) == Tickets{expected});
  }
  CHECK((ended == Tickets{2, 3, 1}));
}

void test_queue_short_request_waits_for_one_row_however_many_long_ones() {
  JobQueue queue(kRules);
  for (uint64_t ticket = 1; ticket <= 5; ++ticket) {
    queue.add(due_at(job_of(ticket, {1000, 1000}), 20), at_ms(0));
  }
  CHECK(step(&queue, at_ms(1)) == Tickets{1});
  queue.add(job_of(9, {30}), at_ms(2));
  CHECK(step(&queue, at_ms(3)) == Tickets{9});
}

void test_queue_long_ones_begun_at_a_time_are_bounded() {
  JobQueue queue(kRules);
  for (uint64_t ticket = 1; ticket <= 3; ++ticket) {
    queue.add(job_of(ticket, {1000, 1000}), at_ms(0));
  }
  CHECK(step(&queue, at_ms(1)) == Tickets{1});  // waits anew from 1 ms on
  CHECK(step(&queue, at_ms(2)) == Tickets{2});
  CHECK(step(&queue, at_ms(3)) == Tickets{1});  // 3 is due before, but two are begun
  CHECK(step(&queue, at_ms(4)) == Tickets{3});
  queue.add(due_at(job_of(4, {1000, 1000}), 100), at_ms(5));
  CHECK(queue.take(2) != nullptr);  // withdrawn between its rows: another may begin
  CHECK(step(&queue, at_ms(6)) == Tickets{4});
}

void test_queue_like_lengths_under_one_config_share_a_call() {
  JobQueue queue(kRules);
  queue.add(job_of(1, {60}), at_ms(0));
  queue.add(job_of(2, {400}), at_ms(0));
  queue.add(job_of(3, {64}, 2), at_ms(0));  // another config
  queue.add(job_of(4, {66}), at_ms(0));
  queue.add(job_of(5, {1024, 50}), at_ms(0));  // two rows
  queue.add(job_of(6, {52}), at_ms(0));
  CHECK((step(&queue, at_ms(1)) == Tickets{1, 4, 6}));
  CHECK((step(&queue, at_ms(1)) == Tickets{3}));
  CHECK((step(&queue, at_ms(1)) == Tickets{2}));
}

void test_queue_padding_stays_within_a_quarter_or_the_cost_of_a_call() {
  JobQueue queue(kRules);
  const std::vector<size_t> lengths = {100, 30, 97, 12, 64, 200, 10, 9, 150, 33, 11, 300, 8, 99};
  for (size_t i = 0; i < lengths.size(); ++i) {
    queue.add(job_of(i + 1, {lengths[i]}), at_ms(static_cast<int>(i)));
  }
  size_t n_units = 0, n_rows = 0;
  while (std::optional<Unit> unit = queue.next()) {
    size_t real = 0, longest = 0;
    for (JobPointer& job : unit->jobs) {
      real += job->rows.front().n_tokens;
      longest = std::max(longest, job->rows.front().n_tokens);
      job->answer = Result<Score>(Score{});
    }
    const size_t n = unit->jobs.size();
    const size_t padding = n * longest - real;
    CHECK(padding <= std::max(real / 4, JobQueue::kCallTokens * (n - 1)));
    CHECK(n * longest <= kRules.batch_tokens);
    ++n_units;
    n_rows += n;
    CHECK(queue.finish(std::move(*unit), at_ms(20)).size() == n);
  }
  CHECK(n_rows == lengths.size() && n_units == 5);
}

void test_queue_token_budget_bounds_a_call() {
  JobQueue queue(kRules);
  for (uint64_t ticket = 1; ticket <= 9; ++ticket) queue.add(job_of(ticket, {128}), at_ms(0));
  CHECK((step(&queue, at_ms(1)).size() == 4));
  CHECK((step(&queue, at_ms(1)).size() == 4));
  CHECK((step(&queue, at_ms(1)).size() == 1));
  queue.add(job_of(10, {900}), at_ms(2));  // over the budget alone: never refused for it
  CHECK((step(&queue, at_ms(3)) == Tickets{10}));
}

// Takes the next unit, which must be a call for the prefix of `config`.
Unit next_build(JobQueue* queue, uint8_t config) {
  std::optional<Unit> unit = queue->next();
  CHECK(unit.has_value() && unit->jobs.empty() && unit->group->key == config_key(config));
  return unit.has_value() ? std::move(*unit) : Unit{};
}

void test_queue_missing_prefix_is_encoded_once_between_other_requests() {
  JobQueue queue(kRules);
  queue.add(without_prefix(job_of(1, {40}, 7)), at_ms(0));
  queue.add(without_prefix(job_of(2, {40}, 7)), at_ms(0));
  queue.add(job_of(3, {40}), at_ms(1));
  Unit build = next_build(&queue, 7);
  CHECK(step(&queue, at_ms(2)) == Tickets{3});    // warm, while the other is being encoded
  CHECK(step(&queue, at_ms(2)) == Tickets{999});  // no second call for the same prefix
  CHECK(queue.finish(std::move(build), at_ms(3)).empty());  // a part is missing yet
  build = next_build(&queue, 7);
  CHECK(queue.finish(std::move(build), at_ms(4)).empty());
  queue.add(job_of(4, {40}), at_ms(5));
  CHECK(step(&queue, at_ms(6)) == Tickets{4});  // due later, but quick
  CHECK(step(&queue, at_ms(7)).empty());        // the last part
  CHECK((step(&queue, at_ms(8)) == Tickets{1, 2}));
}

void test_queue_prefix_that_fails_ends_those_that_wait_for_it() {
  JobQueue queue(kRules);
  queue.add(without_prefix(job_of(1, {40}, 7)), at_ms(0));
  queue.add(without_prefix(job_of(2, {40, 40}, 7)), at_ms(0));
  queue.add(job_of(3, {40}), at_ms(2000));
  std::optional<Unit> build = queue.next();
  build->failure = {Code::kNonFinite, "test"};
  const std::vector<JobPointer> ended = queue.finish(std::move(*build), at_ms(1));
  CHECK(ended.size() == 2);
  for (const JobPointer& job : ended) CHECK(job->answer->status().code == Code::kNonFinite);
  CHECK((step(&queue, at_ms(2001)) == Tickets{3}));
}

void test_queue_expired_jobs_are_taken_out() {
  JobQueue queue(kRules);
  queue.add(due_at(job_of(1, {40}), 10), at_ms(0));
  queue.add(due_at(job_of(2, {40}), 20), at_ms(0));
  queue.add(job_of(3, {40}), at_ms(0));
  CHECK(queue.first_deadline() == at_ms(10));
  CHECK(queue.take_expired(at_ms(10)).empty());
  CHECK(queue.take_expired(at_ms(11)).size() == 1);
  CHECK(queue.size() == 2 && queue.take(1) == nullptr);
}

}  // namespace

int main() {
  test_queue_earliest_deadline_runs_first();
  test_queue_patience_bounds_how_much_later_requests_overtake();
  test_queue_short_requests_pass_long_ones_that_came_a_little_earlier();
  test_queue_equal_due_keeps_the_order_of_submission();
  test_queue_short_requests_run_between_rows_of_a_long_one();
  test_queue_short_request_waits_for_one_row_however_many_long_ones();
  test_queue_long_ones_begun_at_a_time_are_bounded();
  test_queue_like_lengths_under_one_config_share_a_call();
  test_queue_padding_stays_within_a_quarter_or_the_cost_of_a_call();
  test_queue_token_budget_bounds_a_call();
  test_queue_missing_prefix_is_encoded_once_between_other_requests();
  test_queue_prefix_that_fails_ends_those_that_wait_for_it();
  test_queue_expired_jobs_are_taken_out();
  return csrm_test::summary();
}
