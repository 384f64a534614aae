// The scheduler in the C API, over csrm/scheduler.h: requests copied in, answers handed to the
// caller's callback or to the thread that waits. Not: order, bounds or threads of requests, which
// are the Scheduler's, and not the rest of the C API (c_api.cc).
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <future>
#include <memory>
#include <utility>
#include <vector>

#include "c_api.h"
#include "csrm/scheduler.h"

struct csrm_scheduler {
  std::unique_ptr<csrm::Scheduler> scheduler;
};

namespace {

using csrm::Result;
using csrm::Score;
using csrm::Status;
using csrm::c_api::bad_argument;
using csrm::c_api::finish;
using csrm::c_api::null_argument;

// Whose callback this thread is in. Compared only: the callback may have destroyed it.
thread_local const csrm_scheduler* answering_for = nullptr;

// What the first header with each struct had.
constexpr size_t kOldestOptions = CSRM_SIZE_THROUGH(csrm_scheduler_options, patience_ms);
constexpr size_t kOldestStats = CSRM_SIZE_THROUGH(csrm_scheduler_stats, max_queue_time_ns);

csrm_scheduler_options default_options() {
  const csrm::SchedulerOptions defaults;
  return {sizeof(csrm_scheduler_options), defaults.n_workers,  defaults.max_begun,
          defaults.max_requests,          defaults.max_tokens, defaults.batch_tokens,
          defaults.patience.count()};
}

Status create(const csrm_scorer* scorer, const csrm_scheduler_options* given,
              csrm_scheduler** scheduler) {
  if (scheduler == nullptr) return null_argument("scheduler");
  *scheduler = nullptr;
  if (scorer == nullptr) return null_argument("scorer");
  csrm::SchedulerOptions options;
  if (given != nullptr) {
    csrm_scheduler_options known = default_options();
    Status bad = csrm::c_api::read_struct(given, kOldestOptions, "options", &known);
    if (!bad.ok()) return bad;
    options.n_workers = known.n_workers;
    options.max_begun = known.max_begun;
    options.max_requests = known.max_requests;
    options.max_tokens = known.max_tokens;
    options.batch_tokens = known.batch_tokens;
    options.patience = std::chrono::milliseconds(known.patience_ms);
  }
  auto handle = std::make_unique<csrm_scheduler>();
  auto created = csrm::Scheduler::create(scorer->scorer, options);
  if (!created.ok()) return created.status();
  handle->scheduler = std::move(created).value();
  *scheduler = handle.release();
  return Status::success();
}

csrm::SchedulerTime deadline_after(int64_t timeout_ms) {
  // A hundred years; the clock counts nanoseconds and ends after three hundred.
  constexpr int64_t kForeverMs = int64_t{100} * 365 * 24 * 3600 * 1000;
  if (timeout_ms < 0 || timeout_ms > kForeverMs) return csrm::SchedulerTime::max();
  return csrm::SchedulerTime::clock::now() + std::chrono::milliseconds(timeout_ms);
}

Status read_request(const csrm_config* config, const csrm_conversation* conversation,
                    const csrm_score_options* options, int64_t timeout_ms,
                    csrm::ScoreRequest* request) {
  request->deadline = deadline_after(timeout_ms);
  if (config == nullptr) return null_argument("config");
  if (conversation == nullptr) return null_argument("conversation");
  Status bad = csrm::c_api::read_score_options(options, &request->options);
  if (!bad.ok()) return bad;
  request->config = config->config;
  request->conversation = conversation->turns;
  return Status::success();
}

// On a worker's thread: the caller's function with `score` as the C API shows it.
void answer(const csrm_scheduler* scheduler, const Result<Score>& score,
            csrm_score_callback callback, void* user_data) noexcept {
  csrm_score_result result;
  csrm_score_result_init(&result);
  std::vector<csrm_turn_score> turns;
  std::vector<csrm_rule_score> rules;
  const int code = finish([&]() -> Status {
    if (!score.ok()) return score.status();
    turns.resize(score.value().turns.size());
    rules.resize(score.value().rules.size());
    result.turns = turns.data();
    result.turn_capacity = turns.size();
    result.rules = rules.data();
    result.rule_capacity = rules.size();
    csrm::c_api::copy_score(score.value(), &result);
    return Status::success();
  });
  answering_for = scheduler;
  callback(user_data, code, &result);
  answering_for = nullptr;
}

Status submit(csrm_scheduler* scheduler, csrm::ScoreRequest request, csrm_score_callback callback,
              void* user_data, uint64_t* ticket) {
  const Result<uint64_t> taken = scheduler->scheduler->submit(
      std::move(request),
      [=](const Result<Score>& score) { answer(scheduler, score, callback, user_data); });
  if (!taken.ok()) return taken.status();
  if (ticket != nullptr) *ticket = taken.value();
  return Status::success();
}

Status score_and_wait(csrm_scheduler* scheduler, csrm::ScoreRequest request,
                      csrm_score_result* result) {
  if (answering_for == scheduler) {
    return bad_argument(
        "csrm_scheduler_score is called in a callback of this scheduler and would wait for itself; "
        "call csrm_scheduler_submit there");
  }
  // Shared, because a std::function can be copied.
  const auto given = std::make_shared<std::promise<Result<Score>>>();
  std::future<Result<Score>> answer = given->get_future();
  const Result<uint64_t> taken = scheduler->scheduler->submit(
      std::move(request), [given](Result<Score> score) { given->set_value(std::move(score)); });
  if (!taken.ok()) return taken.status();
  const Result<Score> score = answer.get();
  if (!score.ok()) return score.status();
  csrm::c_api::copy_score(score.value(), result);
  return Status::success();
}

void copy_stats(const csrm::SchedulerStats& stats, csrm_scheduler_stats* copy) {
  copy->n_queued = stats.n_queued;
  copy->n_running = stats.n_running;
  copy->held_tokens = stats.held_tokens;
  copy->n_accepted = stats.n_accepted;
  copy->n_refused = stats.n_refused;
  copy->n_finished = stats.n_finished;
  copy->n_failed = stats.n_failed;
  copy->n_expired = stats.n_expired;
  copy->n_cancelled = stats.n_cancelled;
  copy->n_batches = stats.n_batches;
  copy->n_rows = stats.n_rows;
  copy->real_tokens = stats.real_tokens;
  copy->padded_tokens = stats.padded_tokens;
  copy->n_prefix_calls = stats.n_prefix_calls;
  copy->queue_time_ns = static_cast<uint64_t>(stats.queue_time.count());
  copy->max_queue_time_ns = static_cast<uint64_t>(stats.max_queue_time.count());
}

}  // namespace

extern "C" {

void csrm_scheduler_options_init_sized(csrm_scheduler_options* options, size_t struct_size) {
  csrm::c_api::init_struct(options, struct_size, kOldestOptions, default_options());
}

void(csrm_scheduler_options_init)(csrm_scheduler_options* options) {
  csrm_scheduler_options_init_sized(options, kOldestOptions);
}

int csrm_scheduler_create(const csrm_scorer* scorer, const csrm_scheduler_options* options,
                          csrm_scheduler** scheduler) {
  return finish([&] { return create(scorer, options, scheduler); });
}

void csrm_scheduler_destroy(csrm_scheduler* scheduler) { delete scheduler; }

int csrm_scheduler_submit(csrm_scheduler* scheduler, const csrm_config* config,
                          const csrm_conversation* conversation, const csrm_score_options* options,
                          int64_t timeout_ms, csrm_score_callback callback, void* user_data,
                          uint64_t* ticket) {
  return finish([&] {
    if (scheduler == nullptr) return null_argument("scheduler");
    if (callback == nullptr) return null_argument("callback");
    csrm::ScoreRequest request;
    Status bad = read_request(config, conversation, options, timeout_ms, &request);
    if (!bad.ok()) return bad;
    return submit(scheduler, std::move(request), callback, user_data, ticket);
  });
}

int csrm_scheduler_score(csrm_scheduler* scheduler, const csrm_config* config,
                         const csrm_conversation* conversation, const csrm_score_options* options,
                         int64_t timeout_ms, csrm_score_result* result) {
  return finish([&] {
    if (Status bad = csrm::c_api::prepare_result(result); !bad.ok()) return bad;
    if (scheduler == nullptr) return null_argument("scheduler");
    csrm::ScoreRequest request;
    Status bad = read_request(config, conversation, options, timeout_ms, &request);
    if (!bad.ok()) return bad;
    return score_and_wait(scheduler, std::move(request), result);
  });
}

int csrm_scheduler_cancel(csrm_scheduler* scheduler, uint64_t ticket, int32_t* is_withdrawn) {
  return finish([&] {
    if (scheduler == nullptr) return null_argument("scheduler");
    const bool withdrawn = scheduler->scheduler->cancel(ticket);
    if (is_withdrawn != nullptr) *is_withdrawn = withdrawn ? 1 : 0;
    return Status::success();
  });
}

int csrm_scheduler_shutdown(csrm_scheduler* scheduler, int32_t* has_ended) {
  return finish([&] {
    if (scheduler == nullptr) return null_argument("scheduler");
    const bool ended = scheduler->scheduler->shutdown();
    if (has_ended != nullptr) *has_ended = ended ? 1 : 0;
    return Status::success();
  });
}

void csrm_scheduler_stats_init_sized(csrm_scheduler_stats* stats, size_t struct_size) {
  csrm::c_api::init_struct(stats, struct_size, kOldestStats, csrm_scheduler_stats{});
}

void(csrm_scheduler_stats_init)(csrm_scheduler_stats* stats) {
  csrm_scheduler_stats_init_sized(stats, kOldestStats);
}

int csrm_scheduler_get_stats(csrm_scheduler* scheduler, csrm_scheduler_stats* stats) {
  return finish([&] {
    if (scheduler == nullptr) return null_argument("scheduler");
    if (stats == nullptr) return null_argument("stats");
    Status bad = csrm::c_api::check_size(stats, kOldestStats, "stats");
    if (!bad.ok()) return bad;
    csrm_scheduler_stats known{};
    copy_stats(scheduler->scheduler->stats(), &known);
    csrm::c_api::write_struct(known, stats);
    return bad;
  });
}

}  // extern "C"
