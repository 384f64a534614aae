// Turns exceptions of the standard library into a Status at the noexcept surface of csrm.
// Not: error handling inside the core, which returns Status where something can go wrong.
#ifndef CSRM_SRC_GUARDED_H_
#define CSRM_SRC_GUARDED_H_

#include <new>
#include <stdexcept>
#include <utility>

#include "csrm/status.h"

namespace csrm {

// What `call` returns, or `Outcome(Status)` for an exception. The messages fit a string's inline
// buffer: making them cannot fail when memory is short.
template <typename Outcome, typename Call>
Outcome guarded(Call&& call) noexcept {
  try {
    return std::forward<Call>(call)();
  } catch (const std::bad_alloc&) {
    return Outcome(Status{Code::kLimitExceeded, "out of memory"});
  } catch (const std::length_error&) {  // a size that no memory could hold
    return Outcome(Status{Code::kLimitExceeded, "out of memory"});
  } catch (...) {
    return Outcome(Status{Code::kInternal, "unexpected"});
  }
}

}  // namespace csrm

#endif  // CSRM_SRC_GUARDED_H_
