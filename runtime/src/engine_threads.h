// The threads that a session on the CPU computes with beside the thread that calls: made here and
// not by ONNX Runtime, so that they can be kept off the core of the caller. Why: Linux wakes a
// thread that has slept for some 100 ms on the core of the thread that wakes it, where it waits for
// the very thread that waits for it; two threads were then as slow as one (docs/log.md). The other
// remedy, threads that spin, takes the time of other calls and other processes.
// Not: how many there are (threads.h) or what they do, which is ONNX Runtime's.
#ifndef CSRM_SRC_ENGINE_THREADS_H_
#define CSRM_SRC_ENGINE_THREADS_H_

#include <memory>

#include "csrm/status.h"
#include "engine_library.h"

namespace csrm {

// Thread-safe. Must outlive the session whose options it was set in.
class EngineThreads {
 public:
  // For as long as it lives a thread computes with the others. The first call puts them on the
  // cores that are theirs less the one that it runs on; a call beside another gives them all.
  class Call {
   public:
    explicit Call(EngineThreads* threads);
    ~Call();
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

   private:
    EngineThreads* threads_;
  };

  EngineThreads();
  ~EngineThreads();
  EngineThreads(const EngineThreads&) = delete;
  EngineThreads& operator=(const EngineThreads&) = delete;

  // Lets sessions made with `options` start their threads here. Errors: EngineFailed.
  Status set_in(const OrtApi* api, OrtSessionOptions* options);

 private:
  struct Thread;
  struct State;

  static OrtCustomThreadHandle start(void* self, OrtThreadWorkerFn work, void* argument);
  static void join(OrtCustomThreadHandle handle);

  std::unique_ptr<State> state_;
};

}  // namespace csrm

#endif  // CSRM_SRC_ENGINE_THREADS_H_
