// What the parts of the C API share: the handles, how a call ends, and structs in and out.
// Not: any function of csrm.h (c_api.cc, c_api_scheduler.cc). Structs come from callers built
// against this header or another version of it; scores go back into them.
#ifndef CSRM_SRC_C_API_H_
#define CSRM_SRC_C_API_H_

#include <algorithm>
#include <cstddef>
#include <cstring>
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

// The size of a struct that ends with `field`: what the first header with it had.
#define CSRM_SIZE_THROUGH(Struct, field) (offsetof(Struct, field) + sizeof(Struct::field))

// No struct will ever be larger; a caller that says so has not initialised it.
constexpr size_t kMaxStructSize = 4096;

// Writes `defaults` to *out as the caller's header declares it, with `struct_size` bytes: shorter
// or longer than here, then zeros at the end. Nothing for a null or for less than `oldest_size`.
template <typename Struct>
void init_struct(Struct* out, size_t struct_size, size_t oldest_size, const Struct& defaults) {
  if (out == nullptr || struct_size < oldest_size || struct_size > kMaxStructSize) return;
  std::memset(static_cast<void*>(out), 0, struct_size);
  std::memcpy(static_cast<void*>(out), &defaults, std::min(struct_size, sizeof(Struct)));
  out->struct_size = struct_size;
}

// That *given was initialised, by a header with at least `oldest_size` bytes of it.
template <typename Struct>
Status check_size(const Struct* given, size_t oldest_size, const char* name) {
  if (given->struct_size >= oldest_size && given->struct_size <= kMaxStructSize) {
    return Status::success();
  }
  return {Code::kBadArgument,
          std::string(name) + " is not initialised; call its _init function first"};
}

// Reads *given over the defaults in *known, which stay for fields that a shorter struct lacks.
// A caller built against a newer header may have fields this library does not know; they must be
// zero, because ignoring a wish silently would be worse than refusing it.
// Errors: BadArgument, Unsupported.
template <typename Struct>
Status read_struct(const Struct* given, size_t oldest_size, const char* name, Struct* known) {
  if (Status bad = check_size(given, oldest_size, name); !bad.ok()) return bad;
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  const size_t n_known = std::min(given->struct_size, sizeof(Struct));
  const auto* end = bytes + given->struct_size;
  if (std::any_of(bytes + n_known, end, [](unsigned char byte) { return byte != 0; })) {
    return {Code::kUnsupported,
            std::string(name) + " sets fields newer than this library; update libcsrm"};
  }
  std::memcpy(static_cast<void*>(known), given, n_known);
  return Status::success();
}

// Writes `known` to *given, as much as the caller's header declares.
template <typename Struct>
void write_struct(const Struct& known, Struct* given) {
  const size_t struct_size = given->struct_size;
  std::memcpy(static_cast<void*>(given), &known, std::min(struct_size, sizeof(Struct)));
  given->struct_size = struct_size;
}

// The options `given`, which may be null for the defaults. Errors: BadArgument, Unsupported.
Status read_score_options(const csrm_score_options* given, ScoreOptions* options);

// That `result` may be written, which is then set to failed. Errors: BadArgument.
Status prepare_result(csrm_score_result* result);

// Writes a score, as much of turns and rules as the caller's arrays hold.
void copy_score(const Score& score, csrm_score_result* result);

}  // namespace csrm::c_api

#endif  // CSRM_SRC_C_API_H_
