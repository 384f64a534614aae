// EngineThreads: which cores the threads may use during one call, during two, and after somebody
// else moved them. The engine is a table of three functions that keep what they are given.
// Not: what it is worth (docs/log.md) or scores (test_engine.cc).
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "check.h"
#include "engine_threads.h"

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace {

using csrm::EngineThreads;

// What a session would have been given.
struct Given {
  OrtCustomCreateThreadFn create = nullptr;
  void* options = nullptr;
  OrtCustomJoinThreadFn join = nullptr;
} given;

OrtApi engine() {
  OrtApi api;
  std::memset(static_cast<void*>(&api), 0, sizeof(api));
  api.SessionOptionsSetCustomCreateThreadFn =
      [](OrtSessionOptions*, OrtCustomCreateThreadFn create) noexcept -> OrtStatusPtr {
    given.create = create;
    return nullptr;
  };
  api.SessionOptionsSetCustomThreadCreationOptions = [](OrtSessionOptions*,
                                                        void* options) noexcept -> OrtStatusPtr {
    given.options = options;
    return nullptr;
  };
  api.SessionOptionsSetCustomJoinThreadFn =
      [](OrtSessionOptions*, OrtCustomJoinThreadFn join) noexcept -> OrtStatusPtr {
    given.join = join;
    return nullptr;
  };
  return api;
}

#if defined(__linux__)

// A thread of the engine that waits until it is told to end.
struct Worker {
  std::atomic<bool> has_started{false}, is_over{false};
  pthread_t self{};
  OrtCustomThreadHandle handle = nullptr;

  static void work(void* argument) {
    auto* worker = static_cast<Worker*>(argument);
    worker->self = pthread_self();
    worker->has_started = true;
    while (!worker->is_over) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
};

cpu_set_t cores_of(pthread_t thread) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CHECK(pthread_getaffinity_np(thread, sizeof(cores), &cores) == 0);
  return cores;
}

void set_cores(pthread_t thread, const cpu_set_t& cores) {
  CHECK(pthread_setaffinity_np(thread, sizeof(cores), &cores) == 0);
}

cpu_set_t only(int cpu) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CPU_SET(cpu, &cores);
  return cores;
}

bool may_use(const Worker& worker, const cpu_set_t& cores) {
  const cpu_set_t found = cores_of(worker.self);
  return CPU_EQUAL(&found, &cores);
}

void test_engine_threads_stay_off_the_core_of_a_lone_caller() {
  const cpu_set_t all = cores_of(pthread_self());
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &all)) cpus.push_back(cpu);
  }
  if (cpus.size() < 2) return csrm_test::skip(1, "threads can be kept apart on two cores alone");
  EngineThreads threads;
  const OrtApi api = engine();
  CHECK(threads.set_in(&api, nullptr).ok());
  Worker workers[2];
  for (Worker& worker : workers) {
    worker.handle = given.create(given.options, Worker::work, &worker);
    CHECK(worker.handle != nullptr);
    while (!worker.has_started) std::this_thread::yield();
  }

  for (const int cpu : {cpus[0], cpus[1], cpus[0]}) {
    set_cores(pthread_self(), only(cpu));
    cpu_set_t others = all;
    CPU_CLR(cpu, &others);
    const EngineThreads::Call call(&threads);
    for (const Worker& worker : workers) CHECK(may_use(worker, others));
    const EngineThreads::Call second(&threads);  // and one beside it may need any core
    for (const Worker& worker : workers) CHECK(may_use(worker, all));
  }

  // Moved by somebody else, it stays where it was put, also where that is the caller's core alone.
  set_cores(workers[0].self, only(cpus[1]));
  for (const int cpu : {cpus[0], cpus[1], cpus[0]}) {
    set_cores(pthread_self(), only(cpu));
    const EngineThreads::Call call(&threads);
    CHECK(may_use(workers[0], only(cpus[1])));
    CHECK(may_use(workers[1], all) == false);
  }
  set_cores(workers[0].self, all);
  {
    const EngineThreads::Call call(&threads);
    cpu_set_t others = all;
    CPU_CLR(cpus[0], &others);
    CHECK(may_use(workers[0], others));
  }

  for (Worker& worker : workers) {
    worker.is_over = true;
    given.join(worker.handle);
  }
  const EngineThreads::Call call(&threads);  // none is left to be placed
  set_cores(pthread_self(), all);
}

void test_engine_threads_calls_from_many_threads_end() {
  EngineThreads threads;
  const OrtApi api = engine();
  CHECK(threads.set_in(&api, nullptr).ok());
  Worker worker;
  worker.handle = given.create(given.options, Worker::work, &worker);
  while (!worker.has_started) std::this_thread::yield();
  const cpu_set_t before = cores_of(worker.self);
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&threads] {
      for (int n = 0; n < 500; ++n) const EngineThreads::Call call(&threads);
    });
  }
  for (std::thread& caller : callers) caller.join();
  const EngineThreads::Call first(&threads), second(&threads);
  CHECK(may_use(worker, before));
  worker.is_over = true;
  given.join(worker.handle);
}

#endif

}  // namespace

int main() {
#if defined(__linux__)
  test_engine_threads_stay_off_the_core_of_a_lone_caller();
  test_engine_threads_calls_from_many_threads_end();
#else
  csrm_test::skip(2, "threads are kept apart on Linux alone");
#endif
  return csrm_test::summary();
}
