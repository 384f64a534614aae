// What the runtime tells operators of a call beside the model's inputs: nothing that changes a
// result, and a graph runs without. Set by the thread that runs the model, which is also the one
// that the engine calls operators on. Not: options of a session.
#ifndef CSRM_KERNELS_CALL_HINTS_H_
#define CSRM_KERNELS_CALL_HINTS_H_

#include "packed_prefix.h"

namespace csrm::kernels {

struct CallHints {
  PackedPrefix* packed_prefix = nullptr;  // of the call's prefix; may be null
  bool wants_key_value = true;            // else nobody reads the outputs key and value
};

inline CallHints& thread_call_hints() noexcept {
  thread_local CallHints hints;
  return hints;
}

// The hints of all calls that the thread makes as long as this lives.
class CallHintScope {
 public:
  explicit CallHintScope(const CallHints& hints) noexcept { thread_call_hints() = hints; }
  ~CallHintScope() { thread_call_hints() = CallHints(); }
  CallHintScope(const CallHintScope&) = delete;
  CallHintScope& operator=(const CallHintScope&) = delete;
};

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_CALL_HINTS_H_
