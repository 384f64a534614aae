// The one sentence of every LimitExceeded: what, the value, the limit, its option, what to do.
// Not: the limits themselves (csrm::Limits in csrm/types.h).
#ifndef CSRM_SRC_LIMIT_ERROR_H_
#define CSRM_SRC_LIMIT_ERROR_H_

#include <cstddef>
#include <string>

#include "csrm/status.h"

namespace csrm {

// LimitExceeded: "<what> <value>; limit is <limit> (Limits::<option>); <advice>".
inline Status limit_exceeded(const std::string& what, size_t value, size_t limit,
                             const char* option, const char* advice) {
  return {Code::kLimitExceeded, what + " " + std::to_string(value) + "; limit is " +
                                    std::to_string(limit) + " (Limits::" + option + "); " + advice};
}

}  // namespace csrm

#endif  // CSRM_SRC_LIMIT_ERROR_H_
