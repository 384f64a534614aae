#include "job_queue.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace csrm {
namespace {

bool is_before(const Job& a, const Job& b) {
  return std::tie(a.due, a.ticket) < std::tie(b.due, b.ticket);
}

size_t length_of(const Job& job) { return job.rows.front().n_tokens; }

size_t distance(size_t a, size_t b) { return a > b ? a - b : b - a; }

}  // namespace

void JobQueue::add(JobPointer job, SchedulerTime now) {
  const size_t n_tokens = std::min(job->next_row().n_tokens, kMaxRowTokens);
  const std::chrono::nanoseconds patience = rules_.patience * n_tokens / kMaxRowTokens;
  job->due = std::min(job->deadline, now + patience);
  if (job->group == nullptr || job->group->key != job->key) job->group = group_of(*job);
  waiting_.push_back(std::move(job));
}

std::shared_ptr<Group> JobQueue::group_of(const Job& job) {
  std::shared_ptr<Group> group;
  if (const auto found = groups_.find(job.key); found != groups_.end())
    group = found->second.lock();
  if (group == nullptr) {
    for (auto known = groups_.begin(); known != groups_.end();) {
      known = known->second.expired() ? groups_.erase(known) : std::next(known);
    }
    group = std::make_shared<Group>();
    group->key = job.key;
    group->config = job.key_blocks;
    groups_[job.key] = group;
  }
  if (group->prefix == nullptr) group->prefix = job.known_prefix;
  return group;
}

bool JobQueue::may_run(const Job& job) const {
  if (job.group->is_building) return false;
  return job.shares_call || job.is_begun || n_begun_ < rules_.max_begun;
}

size_t JobQueue::choose() const {
  const size_t none = waiting_.size();
  size_t quick = none, slow = none;
  for (size_t i = 0; i < waiting_.size(); ++i) {
    if (!may_run(*waiting_[i])) continue;
    size_t& best = is_slow(*waiting_[i]) ? slow : quick;
    if (best == none || is_before(*waiting_[i], *waiting_[best])) best = i;
  }
  if (quick == none || slow == none) return std::min(quick, slow);
  if (last_was_slow_) return quick;
  return is_before(*waiting_[slow], *waiting_[quick]) ? slow : quick;
}

std::optional<Unit> JobQueue::next() {
  const size_t chosen = choose();
  if (chosen == waiting_.size()) return std::nullopt;
  last_was_slow_ = is_slow(*waiting_[chosen]);
  Unit unit;
  unit.group = waiting_[chosen]->group;
  if (unit.group->prefix == nullptr) {
    unit.group->is_building = true;
    return unit;
  }
  unit.jobs.push_back(remove_at(chosen));
  Job& first = *unit.jobs.front();
  if (first.shares_call) {
    add_company(&unit);
  } else if (!first.is_begun) {
    first.is_begun = true;
    ++n_begun_;
  }
  return unit;
}

void JobQueue::add_company(Unit* unit) {
  const size_t wanted = length_of(*unit->jobs.front());
  std::vector<size_t> near;
  for (size_t i = 0; i < waiting_.size(); ++i) {
    if (waiting_[i]->group == unit->group && waiting_[i]->shares_call) near.push_back(i);
  }
  std::sort(near.begin(), near.end(), [&](size_t a, size_t b) {
    const size_t from_a = distance(length_of(*waiting_[a]), wanted);
    const size_t from_b = distance(length_of(*waiting_[b]), wanted);
    return from_a != from_b ? from_a < from_b : is_before(*waiting_[a], *waiting_[b]);
  });
  const BatchBudget budget{rules_.batch_tokens, unit->group->prefix->n_tokens};
  size_t n_rows = 1, n_real = wanted, longest = wanted;
  std::vector<size_t> chosen;
  for (const size_t i : near) {
    const size_t length = length_of(*waiting_[i]);
    const size_t padded = (n_rows + 1) * std::max(longest, length);
    const size_t real = n_real + length;
    if (padded - real > std::max(real / 4, kCallTokens * n_rows)) continue;
    if (!fits_budget(n_rows + 1, std::max(longest, length), budget)) continue;
    ++n_rows;
    n_real = real;
    longest = std::max(longest, length);
    chosen.push_back(i);
  }
  std::sort(chosen.rbegin(), chosen.rend());  // from the back, so that the other indices hold
  for (const size_t i : chosen) unit->jobs.push_back(remove_at(i));
}

std::vector<JobPointer> JobQueue::finish(Unit unit, SchedulerTime now) {
  std::vector<JobPointer> ended;
  if (unit.jobs.empty()) {
    Group& group = *unit.group;
    group.is_building = false;
    if (group.prefix == nullptr) group.prefix = unit.built;
    if (group.prefix != nullptr || !unit.failure.ok()) group.build.reset();
    if (unit.failure.ok()) return ended;
    ended = take_if([&](const Job& job) { return job.group == unit.group; });
    for (const JobPointer& job : ended) job->answer = Result<Score>(unit.failure);
    return ended;
  }
  for (JobPointer& job : unit.jobs) {
    if (job->answer.has_value()) {
      forget(*job);
      ended.push_back(std::move(job));
    } else {
      add(std::move(job), now);
    }
  }
  return ended;
}

std::vector<JobPointer> JobQueue::take_expired(SchedulerTime now) {
  return take_if([&](const Job& job) { return job.deadline < now; });
}

SchedulerTime JobQueue::first_deadline() const {
  SchedulerTime first = SchedulerTime::max();
  for (const JobPointer& job : waiting_) first = std::min(first, job->deadline);
  return first;
}

JobPointer JobQueue::take(uint64_t ticket) {
  std::vector<JobPointer> found = take_if([&](const Job& job) { return job.ticket == ticket; });
  return found.empty() ? nullptr : std::move(found.front());
}

std::vector<JobPointer> JobQueue::take_all() {
  return take_if([](const Job&) { return true; });
}

JobPointer JobQueue::remove_at(size_t index) {
  std::swap(waiting_[index], waiting_.back());
  JobPointer job = std::move(waiting_.back());
  waiting_.pop_back();
  return job;
}

void JobQueue::forget(const Job& job) {
  if (job.is_begun) --n_begun_;
}

template <typename Condition>
std::vector<JobPointer> JobQueue::take_if(const Condition& condition) {
  std::vector<JobPointer> taken;
  for (size_t i = 0; i < waiting_.size();) {
    if (!condition(*waiting_[i])) {
      ++i;
      continue;
    }
    forget(*waiting_[i]);
    taken.push_back(remove_at(i));
  }
  return taken;
}

}  // namespace csrm
