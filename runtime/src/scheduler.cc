// Scheduler: options checked, requests made into jobs, and everything else handed to the workers.
// Not: order (job_queue.cc), threads (workers.cc) or stages (job_stages.cc).
#include "csrm/scheduler.h"

#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <system_error>
#include <utility>

#include "guarded.h"
#include "job_stages.h"
#include "workers.h"

namespace csrm {
namespace {

constexpr int kMaxWorkers = 64;
constexpr std::chrono::milliseconds kMaxPatience = std::chrono::hours(24);

Status check_options(const SchedulerOptions& options) {
  const auto bad = [](const char* message) { return Status{Code::kBadArgument, message}; };
  if (options.n_workers < 1 || options.n_workers > kMaxWorkers) {
    return bad("n_workers is outside its range; give 1 to 64");
  }
  if (options.max_requests < 1) return bad("max_requests is 0; give at least 1");
  if (options.max_tokens < 1) return bad("max_tokens is 0; give at least 1");
  if (options.max_begun < 1) return bad("max_begun is less than 1; give at least 1");
  if (options.patience.count() < 0 || options.patience > kMaxPatience) {
    return bad("patience is outside its range; give 0 to 24 hours");
  }
  return Status::success();
}

// Measured on csrm-mini: beyond this a larger batch saves nothing, but all its requests wait for
// it.
size_t default_batch_tokens(const Scorer& scorer) {
  return std::max<size_t>(256, 128 * static_cast<size_t>(scorer.info().n_threads));
}

}  // namespace

struct Scheduler::Impl {
  Impl(std::shared_ptr<const Scorer> scorer, const SchedulerOptions& options)
      : stages(std::make_shared<const JobStages>(std::move(scorer), options.batch_tokens)),
        workers(
            std::make_shared<Workers>(options, [kept = stages](Unit* unit) { kept->run(unit); })),
        owner(::getpid()) {}

  // False in the child of a fork, where no worker lives and the lock may be held for ever.
  bool is_owner() const { return ::getpid() == owner; }

  std::shared_ptr<const JobStages> stages;
  std::shared_ptr<Workers> workers;
  pid_t owner;
};

Result<std::unique_ptr<Scheduler>> Scheduler::create(std::shared_ptr<const Scorer> scorer,
                                                     const SchedulerOptions& options) noexcept {
  return guarded<Result<std::unique_ptr<Scheduler>>>([&]() -> Result<std::unique_ptr<Scheduler>> {
    if (scorer == nullptr) return {Code::kBadArgument, "scorer is null; load one first"};
    if (Status bad = check_options(options); !bad.ok()) return bad;
    SchedulerOptions chosen = options;
    if (chosen.batch_tokens == 0) chosen.batch_tokens = default_batch_tokens(*scorer);
    std::unique_ptr<Scheduler> scheduler(
        new Scheduler(std::make_unique<Impl>(std::move(scorer), chosen)));
    try {
      Workers::start(scheduler->impl_->workers);
    } catch (const std::system_error&) {
      return {Code::kLimitExceeded, "no thread can be started; lower n_workers"};
    }
    return scheduler;
  });
}

Scheduler::Scheduler(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}

Scheduler::~Scheduler() {
  if (impl_->is_owner()) {
    if (!shutdown()) impl_->workers->detach();
  } else {
    // Its threads do not exist here and cannot be joined or detached: what they hold stays.
    static_cast<void>(impl_.release());
  }
}

Result<uint64_t> Scheduler::submit(ScoreRequest request, Callback callback) noexcept {
  return guarded<Result<uint64_t>>([&]() -> Result<uint64_t> {
    if (!impl_->is_owner()) {
      return {Code::kUnsupported,
              "the scheduler was made before a fork and has no workers in this process; make one "
              "after the fork"};
    }
    if (callback == nullptr) return {Code::kBadArgument, "callback is empty; give a function"};
    if (Status bad = impl_->workers->check_open(); !bad.ok()) return bad;
    Result<JobPointer> job = impl_->stages->prepare(std::move(request), std::move(callback));
    if (!job.ok()) return job.status();
    return impl_->workers->submit(std::move(job).value());
  });
}

bool Scheduler::cancel(uint64_t ticket) noexcept {
  return impl_->is_owner() && impl_->workers->cancel(ticket);
}

bool Scheduler::shutdown() noexcept { return !impl_->is_owner() || impl_->workers->shutdown(); }

SchedulerStats Scheduler::stats() const noexcept {
  return impl_->is_owner() ? impl_->workers->stats() : SchedulerStats{};
}

}  // namespace csrm
