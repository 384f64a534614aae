// Requests out of Python and answers back into it, for the bindings of Scorer and Scheduler.
// Not: checks beyond what conversion needs (csrm.scorer). All of it needs the GIL.
#ifndef CSRM_SRC_BIND_SCORE_H_
#define CSRM_SRC_BIND_SCORE_H_

#include <pybind11/pybind11.h>

#include <string>

#include "csrm/status.h"
#include "csrm/types.h"

namespace csrm {

// A list of (role, content). Errors: UnknownRole; raises TypeError for anything but pairs of str.
Result<Conversation> conversation_of(const pybind11::handle& turns);

// A list of (name, text). Raises TypeError.
Config config_of(const pybind11::list& rules, double threshold);

// False, True or "fast"; raises BadArgument.
Explain explain_of(const pybind11::object& value);

// "last" or "assistant"; raises BadArgument.
Judged judged_of(const std::string& name);

// ("error", class name, message).
pybind11::tuple error_tuple(const Status& status);

// (reward, compliance, verdict, turns, rules, scored_tokens).
pybind11::tuple score_tuple(const Score& score);

}  // namespace csrm

#endif  // CSRM_SRC_BIND_SCORE_H_
