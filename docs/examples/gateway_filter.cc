// A gateway filter in C++17, asynchronous: several threads read chat bodies and submit them, worker
// threads of csrm answer by callback, batching what came meanwhile. Fails closed: only an explicit
// "compliant" is an allow.
//
// Not: a gateway, whose event loops would stand where the reading threads do. Bodies come one a
// line from a file or the standard input; decisions go to the standard output as they are made,
// with the number of the body in front, and why a body has none to the standard error.
//
//   c++ -std=c++17 gateway_filter.cc $(pkg-config --cflags --libs csrm) -pthread -o gateway_filter
//   ./gateway_filter 200 "$(pkg-config --variable=artifact_dir csrm)" policy.json bodies.jsonl
//
// Arguments, output and exit status are those of gateway_filter.c.
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "csrm/json.h"
#include "csrm/scheduler.h"
#include "csrm/scorer.h"

namespace {

constexpr int kThreads = 4;
constexpr int kMaxInFlight = 64;  // far below the scheduler's own bound, so that nothing is refused

enum class Decision { kAllow, kBlock, kUnknown };

Decision decide(const csrm::Result<csrm::Score>& score) {
  if (!score.ok()) return Decision::kUnknown;
  switch (score.value().verdict) {
    case csrm::Verdict::kCompliant:
      return Decision::kAllow;
    case csrm::Verdict::kViolation:
      return Decision::kBlock;
    case csrm::Verdict::kUnknown:
      break;
  }
  return Decision::kUnknown;
}

// The bodies, handed out one by one, and the decisions, written one by one. Thread-safe.
class Traffic {
 public:
  explicit Traffic(std::istream* bodies) : bodies_(bodies) {}

  // Waits while too many bodies are without a decision. False at the end.
  bool next(std::string* body, long* number) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return n_in_flight_ < kMaxInFlight; });
    if (!std::getline(*bodies_, *body)) return false;
    *number = ++n_bodies_;
    ++n_in_flight_;
    return true;
  }

  void answer(long number, const csrm::Result<csrm::Score>& score) {
    static constexpr const char* kNames[] = {"allow", "block", "unknown"};
    constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
    const Decision decision = decide(score);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!score.ok()) {  // the message never contains text of the body
      std::fprintf(stderr, "gateway_filter: no decision: %s\n", score.status().message.c_str());
    }
    std::printf("%ld %s %.9g %.9g %s\n", number, kNames[static_cast<int>(decision)],
                score.ok() ? double{score.value().reward} : kNone,
                score.ok() ? double{score.value().compliance} : kNone,
                score.ok() ? "-" : csrm::code_name(score.status().code));
    all_pass_ = all_pass_ && decision == Decision::kAllow;
    --n_in_flight_;
    changed_.notify_all();
  }

  // Waits until every body has its decision; whether all may pass.
  bool finish() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return n_in_flight_ == 0; });
    return all_pass_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::istream* const bodies_;
  long n_bodies_ = 0;
  int n_in_flight_ = 0;
  bool all_pass_ = true;
};

// One reading thread. Whatever happens, each body is answered once.
void filter_bodies(csrm::Scheduler* scheduler, const csrm::Config& config,
                   std::chrono::milliseconds timeout, Traffic* traffic) {
  std::string body;
  long number = 0;
  while (traffic->next(&body, &number)) {
    auto conversation = csrm::parse_conversation_json(body);
    if (!conversation.ok()) {
      traffic->answer(number, conversation.status());
      continue;
    }
    csrm::ScoreRequest request;
    request.config = config;
    request.conversation = std::move(conversation).value();
    request.deadline = std::chrono::steady_clock::now() + timeout;
    const auto ticket = scheduler->submit(
        std::move(request), [traffic, number](const csrm::Result<csrm::Score>& score) {
          traffic->answer(number, score);
        });
    if (!ticket.ok()) traffic->answer(number, ticket.status());  // then there is no callback
  }
}

int fail(const char* what, const csrm::Status& status) {
  std::fprintf(stderr, "gateway_filter: %s: %s\n", what, status.message.c_str());
  return 2;
}

int run(std::chrono::milliseconds timeout, const std::string& artifact_dir,
        const std::string& config_path, std::istream* bodies) {
  std::ifstream file(config_path, std::ios::binary);
  const std::string json{std::istreambuf_iterator<char>(file), {}};
  const auto config = csrm::parse_config_json(json);
  if (!config.ok()) return fail("config", config.status());
  auto loaded = csrm::Scorer::load(artifact_dir, {});
  if (!loaded.ok()) return fail("model", loaded.status());
  const std::shared_ptr<const csrm::Scorer> scorer = std::move(loaded).value();
  // Encodes the rules before traffic comes: they are cached.
  const auto warm = scorer->score(config.value(), {{csrm::Role::kUser, "Hello"}}, {});
  if (!warm.ok()) return fail("config", warm.status());
  Traffic traffic(bodies);  // outlives the scheduler, whose callbacks use it
  const auto scheduler = csrm::Scheduler::create(scorer, {});
  if (!scheduler.ok()) return fail("threads", scheduler.status());

  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back(filter_bodies, scheduler.value().get(), std::cref(config.value()), timeout,
                         &traffic);
  }
  for (std::thread& thread : threads) thread.join();
  const bool all_pass = traffic.finish();
  return std::fflush(stdout) != 0 || bodies->bad() ? 2 : all_pass ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4 && argc != 5) {
    std::fprintf(stderr,
                 "usage: gateway_filter TIMEOUT_MS MODEL_FOLDER CONFIG.json [BODIES.jsonl]\n");
    return 2;
  }
  char* end = nullptr;
  const std::chrono::milliseconds timeout(std::strtol(argv[1], &end, 10));
  if (end == argv[1] || *end != '\0' || timeout.count() < 0 || timeout > std::chrono::hours(24)) {
    std::fprintf(stderr, "gateway_filter: the deadline must be 0 to 86400000 milliseconds\n");
    return 2;
  }
  if (argc == 4) return run(timeout, argv[2], argv[3], &std::cin);
  std::ifstream bodies(argv[4], std::ios::binary);
  if (!bodies) {
    std::fprintf(stderr, "gateway_filter: cannot open %s\n", argv[4]);
    return 2;
  }
  return run(timeout, argv[2], argv[3], &bodies);
}
