// Scheduler with a model: threads that submit, cancel and let deadlines pass while others use the
// same Scorer, every answer exactly once and bit-equal to Scorer::score. Made for ThreadSanitizer.
// Not: the order (test_job_queue.cc), the workers without an engine (test_workers.cc), or the whole
// table of requests (tests/python/test_scheduler.py).
#include <atomic>
#include <chrono>
#include <cstdio>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "check.h"
#include "csrm/scheduler.h"

namespace {

using csrm::Code;
using csrm::Config;
using csrm::Conversation;
using csrm::Result;
using csrm::Role;
using csrm::Scheduler;
using csrm::Score;
using csrm::Scorer;
using csrm::ScoreRequest;

const Config kConfigs[] = {
    {{{"refunds", "Never promise a refund."}, {"", "Be polite to every customer."}}, 0.5},
    {{{"", "Do not speak about other customers."}}, 0.5},
};

// Request `i`: another config, length and kind of call.
ScoreRequest request_of(size_t i) {
  ScoreRequest request;
  request.config = kConfigs[i % 2];
  std::string words = "thank you";
  for (size_t n = 0; n < i; ++n) words += n % 2 == 0 ? " it came" : " late today.";
  request.conversation = {{Role::kUser, "where is my order"}, {Role::kAssistant, words}};
  request.options.explain = i % 5 == 1 ? csrm::Explain::kExact : csrm::Explain::kNone;
  request.options.reuse_turns = i % 4 == 2;
  return request;
}

std::unique_ptr<Scheduler> scheduler_of(const std::shared_ptr<const Scorer>& scorer,
                                        const csrm::SchedulerOptions& options = {}) {
  Result<std::unique_ptr<Scheduler>> made = Scheduler::create(scorer, options);
  CHECK(made.ok());
  return made.ok() ? std::move(made).value() : nullptr;
}

// Calls that fill, read and empty the caches beside a scheduler, until told to end.
void use_meanwhile(Scorer* scorer, const std::atomic<bool>* is_over) {
  for (size_t i = 0; !*is_over; ++i) {
    const ScoreRequest request = request_of(i % 3);
    CHECK(scorer->score(request.config, request.conversation, request.options).ok());
    CHECK(scorer->check_integrity().ok());
    CHECK(scorer->cache_stats().n_tokens <= scorer->cache_stats().max_tokens);
    if (i % 2 == 1) scorer->clear_cache();
  }
}

void test_scheduler_without_scorer_or_bad_options_is_refused() {
  CHECK(Scheduler::create(nullptr, {}).status().code == Code::kBadArgument);
}

void test_scheduler_threads_get_the_scorers_scores(const std::shared_ptr<Scorer>& scorer) {
  constexpr size_t kThreads = 4, kEach = 3;
  csrm::SchedulerOptions options;
  options.n_workers = 2;
  std::vector<std::promise<Result<Score>>> promises(kThreads * kEach);  // outlive the callbacks
  const std::unique_ptr<Scheduler> scheduler = scheduler_of(scorer, options);
  std::atomic<bool> is_over{false};
  std::thread other([&] { use_meanwhile(scorer.get(), &is_over); });
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = t * kEach; i < (t + 1) * kEach; ++i) {
        CHECK(scheduler
                  ->submit(request_of(i),
                           [&, i](Result<Score> score) { promises[i].set_value(std::move(score)); })
                  .ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::vector<Result<Score>> scores;
  for (auto& promise : promises) scores.push_back(promise.get_future().get());
  is_over = true;
  other.join();
  for (size_t i = 0; i < scores.size(); ++i) {
    const ScoreRequest request = request_of(i);
    const auto expected = scorer->score(request.config, request.conversation, request.options);
    CHECK(scores[i].ok() && expected.ok());
    if (!scores[i].ok() || !expected.ok()) continue;
    CHECK(scores[i].value().reward == expected.value().reward);
    CHECK(scores[i].value().rules.size() == expected.value().rules.size());
    CHECK(scores[i].value().scored_tokens == expected.value().scored_tokens);
  }
  CHECK(scheduler->stats().n_finished == scores.size());
}

void test_scheduler_dropped_with_requests_answers_each_once(const std::shared_ptr<Scorer>& scorer) {
  constexpr size_t kRequests = 24;
  std::vector<std::atomic<int>> n_answers(kRequests);
  std::atomic<int> n_scores{0};
  {
    const std::unique_ptr<Scheduler> scheduler = scheduler_of(scorer);
    std::vector<std::thread> threads;
    for (size_t t = 0; t < 3; ++t) {
      threads.emplace_back([&, t] {
        for (size_t i = t; i < kRequests; i += 3) {
          ScoreRequest request = request_of(i % 8);
          if (i % 6 == 1) {
            request.deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(1);
          }
          const auto ticket = scheduler->submit(std::move(request), [&, i](Result<Score> score) {
            ++n_answers[i];
            if (score.ok()) ++n_scores;
          });
          if (!ticket.ok()) {
            CHECK(ticket.status().code == Code::kDeadlineExceeded);
            ++n_answers[i];
          } else if (i % 4 == 3) {
            scheduler->cancel(ticket.value());
          }
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    while (n_scores == 0) std::this_thread::yield();
  }
  for (const auto& n : n_answers) CHECK(n == 1);
  CHECK(n_scores > 0);
}

void test_scheduler_dropped_by_its_callback_ends(const std::shared_ptr<Scorer>& scorer) {
  const auto dropped = std::make_shared<std::promise<void>>();
  std::unique_ptr<Scheduler> scheduler = scheduler_of(scorer);
  Scheduler* const plain = scheduler.release();  // the callback's from here on
  CHECK(plain
            ->submit(request_of(0),
                     [dropped, plain](const Result<Score>& score) {
                       CHECK(score.ok());
                       delete plain;
                       dropped->set_value();
                     })
            .ok());
  dropped->get_future().wait();
}

}  // namespace

int main(int argc, char** argv) {
  test_scheduler_without_scorer_or_bad_options_is_refused();
  if (argc == 3) {
    csrm::ScorerOptions options;
    options.engine_library = argv[2];
    options.n_threads = CSRM_ENGINE_THREADS;
    Result<std::unique_ptr<Scorer>> loaded = Scorer::load(argv[1], options);
    CHECK(loaded.ok());
    if (!loaded.ok()) {
      std::printf("%s\n", loaded.status().message.c_str());
      return csrm_test::summary();
    }
    const std::shared_ptr<Scorer> scorer = std::move(loaded).value();
    test_scheduler_threads_get_the_scorers_scores(scorer);
    test_scheduler_dropped_with_requests_answers_each_once(scorer);
    test_scheduler_dropped_by_its_callback_ends(scorer);
  } else {
    csrm_test::skip(3, csrm_test::kNeedsModel);
  }
  return csrm_test::summary();
}
