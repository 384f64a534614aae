// Affinity by pthread_setaffinity_np, on Linux alone; see engine_threads.h.
#include "engine_threads.h"

#include <algorithm>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace csrm {

#if defined(__linux__)
namespace {

// The cores a thread may use: those it had, or was given by somebody else since (taskset, a new
// cpuset), and those it was given here.
class Cores {
 public:
  // Takes one core of the thread's own from it, or none when `without` is negative or all it has.
  // A refusal leaves the thread where it is, which costs time and nothing else.
  void place(pthread_t thread, int without) {
    cpu_set_t now;
    if (pthread_getaffinity_np(thread, sizeof(now), &now) != 0) return;
    if (!is_placed_ || !CPU_EQUAL(&now, &given_)) own_ = now;
    cpu_set_t wanted = own_;
    if (without >= 0 && without < CPU_SETSIZE) CPU_CLR(without, &wanted);
    if (CPU_COUNT(&wanted) == 0) wanted = own_;
    if (!CPU_EQUAL(&wanted, &now)) {
      if (pthread_setaffinity_np(thread, sizeof(wanted), &wanted) != 0) return;
      // The kernel may have left out some.
      if (pthread_getaffinity_np(thread, sizeof(wanted), &wanted) != 0) return;
    }
    given_ = wanted;
    is_placed_ = true;
  }

 private:
  cpu_set_t own_{};
  cpu_set_t given_{};
  bool is_placed_ = false;
};

}  // namespace

struct EngineThreads::Thread {
  State* owner;
  std::thread thread;
  Cores cores;
};
#else
struct EngineThreads::Thread {
  State* owner;
  std::thread thread;
};
#endif

struct EngineThreads::State {
  std::mutex mutex;
  std::vector<Thread*> threads;  // each owned by the engine, as its handle, until it joins it
  int n_calls = 0;
};

EngineThreads::EngineThreads() : state_(std::make_unique<State>()) {}
EngineThreads::~EngineThreads() = default;

Status EngineThreads::set_in(const OrtApi* api, OrtSessionOptions* options) {
  Status status =
      take_status(api, api->SessionOptionsSetCustomCreateThreadFn(options, start), "options");
  if (!status.ok()) return status;
  status = take_status(
      api, api->SessionOptionsSetCustomThreadCreationOptions(options, state_.get()), "options");
  if (!status.ok()) return status;
  return take_status(api, api->SessionOptionsSetCustomJoinThreadFn(options, join), "options");
}

OrtCustomThreadHandle EngineThreads::start(void* self, OrtThreadWorkerFn work, void* argument) {
  auto* state = static_cast<State*>(self);
  try {
    auto made = std::make_unique<Thread>();
    const std::lock_guard<std::mutex> lock(state->mutex);
    state->threads.reserve(state->threads.size() + 1);
    made->owner = state;
    made->thread = std::thread(work, argument);
#if defined(__linux__)
    pthread_setname_np(made->thread.native_handle(), "csrm-engine");
#endif
    state->threads.push_back(made.get());
    return reinterpret_cast<OrtCustomThreadHandle>(made.release());
  } catch (...) {
    return nullptr;  // the engine makes an error of it
  }
}

void EngineThreads::join(OrtCustomThreadHandle handle) {
  const std::unique_ptr<Thread> thread(
      reinterpret_cast<Thread*>(const_cast<OrtCustomHandleType*>(handle)));
  {
    const std::lock_guard<std::mutex> lock(thread->owner->mutex);
    auto& threads = thread->owner->threads;
    threads.erase(std::remove(threads.begin(), threads.end(), thread.get()), threads.end());
  }
  thread->thread.join();
}

EngineThreads::Call::Call(EngineThreads* threads) : threads_(threads) {
  State& state = *threads->state_;
  const std::lock_guard<std::mutex> lock(state.mutex);
  ++state.n_calls;
#if defined(__linux__)
  const int without = state.n_calls == 1 ? sched_getcpu() : -1;
  for (Thread* thread : state.threads) {
    thread->cores.place(thread->thread.native_handle(), without);
  }
#endif
}

EngineThreads::Call::~Call() {
  const std::lock_guard<std::mutex> lock(threads_->state_->mutex);
  --threads_->state_->n_calls;
}

}  // namespace csrm
