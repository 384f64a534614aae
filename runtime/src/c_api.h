// What the parts of the C API share: the handles, how a call ends, and structs in and out.
// Not: any function of csrm.h (c_api.cc, c_api_scheduler.cc). Structs come from callers built
// against this header or another version of it; scores go back into them.
#ifndef CSRM_SRC_C_API_H_
#define CSRM_SRC_C_API_H_

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "csrm/csrm.h"
#include "csrm/scorer.h"
#include "guarded.h"

struct csrm_scorer {
  std::shared_ptr<const csrm::Scorer> scorer;  // schedulers keep it too
};
struct csrm_config {
  csrm::Config config;
};
struct csrm_conversation {
  csrm::Conversation turns;
};

namespace csrm::c_api {

Status bad_argument(const char* message);
Status null_argument(const char* name);

// Makes the message of a failure csrm_last_error() of this thread; returns the code.
int remember(Status status) noexcept;

// Runs `body`, which returns a Status, and remembers how it ended.
template <typename Body>
int finish(Body&& body) noexcept {
  return remember(guarded<Status>(std::forward<Body>(body)));
}

// A caller built against a newer header may have fields this library does not know; they must be
// zero, because ignoring a wish silently would be worse than refusing it.
// One built against an older header gives a shorter struct, of at least `oldest_size`.
template <typename Struct>
Status check_struct(const Struct* given, size_t oldest_size, const char* name) {
  if (given->struct_size < oldest_size) {
    return {Code::kBadArgument,
            std::string(name) + ".struct_size is too small; call its _init function first"};
  }
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  const size_t n_known = std::min(given->struct_size, sizeof(Struct));
  const auto* end = bytes + given->struct_size;
  if (std::any_of(bytes + n_known, end, [](unsigned char byte) { return byte != 0; })) {
    return {Code::kUnsupported,
            std::string(name) + " sets fields newer than this library; update libcsrm"};
  }
  return Status::success();
}

// The options `given`, which may be null for the defaults. Errors: BadArgument, Unsupported.
Status read_score_options(const csrm_score_options* given, ScoreOptions* options);

// That `result` may be written, which is then set to failed. Errors: BadArgument.
Status prepare_result(csrm_score_result* result);

// Writes a score, as much of turns and rules as the caller's arrays hold.
void copy_score(const Score& score, csrm_score_result* result);

}  // namespace csrm::c_api

#endif  // CSRM_SRC_C_API_H_
