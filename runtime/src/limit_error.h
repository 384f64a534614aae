// The one sentence of every LimitExceeded: what, the value, the limit, its option, what to do; and
// that of a model's positions, which no option raises.
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

// LimitExceeded unless `n_positions` fit the model; a causal sequence cannot be cut.
inline Status check_positions(size_t n_positions, size_t max_positions) {
  if (n_positions <= max_positions) return Status::success();
  return {Code::kLimitExceeded,
          "tokens of the config and the conversation: " + std::to_string(n_positions) +
              "; the model has " + std::to_string(max_positions) +
              " positions; shorten the config or score a part of the conversation"};
}

}  // namespace csrm

#endif  // CSRM_SRC_LIMIT_ERROR_H_
