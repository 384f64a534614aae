// Status codes, `Status` and `Result<T>`: how every csrm function reports failure.
// Not: exceptions. The C++ core throws nothing across these headers; the C API returns the numeric
// code, the Python binding turns it into the class of the same name in `csrm.errors`.
// The table below is the only list of codes; everything else is generated from or tested against
// it.
#ifndef CSRM_STATUS_H_
#define CSRM_STATUS_H_

#include <optional>
#include <string>
#include <utility>

#include "csrm/visibility.h"

// X(enumerator, number, ErrorClass, "one sentence"). Numbers are ABI: append only.
#define CSRM_STATUS_TABLE(X)                                                                       \
  X(kOk, 0, Ok, "Success.")                                                                        \
  X(kBadUtf8, 1, BadUtf8, "A text is not valid UTF-8.")                                            \
  X(kEmptyConversation, 2, EmptyConversation, "There is no turn with text to judge.")              \
  X(kEmptyConfig, 3, EmptyConfig, "The config has no rule with text.")                             \
  X(kUnknownRole, 4, UnknownRole, "A turn's role is not system, user, assistant or tool.")         \
  X(kLimitExceeded, 5, LimitExceeded, "An input is larger than the limit; nothing is truncated.")  \
  X(kBadConfig, 6, BadConfig, "A config file or object does not follow the schema.")               \
  X(kBadConversation, 7, BadConversation, "A conversation does not follow the schema.")            \
  X(kBadArtifact, 8, BadArtifact, "A model folder is incomplete or malformed.")                    \
  X(kDigestMismatch, 9, DigestMismatch, "A model file differs from the digest in its manifest.")   \
  X(kUnsupported, 10, Unsupported, "A schema, operator or option is newer than this build.")       \
  X(kEngineUnavailable, 11, EngineUnavailable, "An engine's library or device cannot be had.")     \
  X(kEngineFailed, 12, EngineFailed, "The inference engine returned an error.")                    \
  X(kNonFinite, 13, NonFinite, "The model produced a value that is not finite.")                   \
  X(kBadArgument, 14, BadArgument, "An option is outside its documented range.")                   \
  X(kInternal, 15, Internal, "An invariant of csrm itself failed; please report it.")              \
  X(kOverloaded, 16, Overloaded, "The scheduler's queue is full; the request was not accepted.")   \
  X(kDeadlineExceeded, 17, DeadlineExceeded, "The deadline passed before the request was scored.") \
  X(kCancelled, 18, Cancelled, "The request was withdrawn or the scheduler shut down.")

namespace csrm {

enum class Code : int {
#define CSRM_STATUS_ENUM(enumerator, number, cls, sentence) enumerator = number,
  CSRM_STATUS_TABLE(CSRM_STATUS_ENUM)
#undef CSRM_STATUS_ENUM
};

// The class name of `code` ("BadUtf8"); static storage. "Internal" for a number outside the table.
CSRM_API const char* code_name(Code code) noexcept;
// The sentence of `code` in the table; static storage.
CSRM_API const char* code_sentence(Code code) noexcept;

// A code and a message. The message says what was wrong, the value, the limit and what to do; it
// never contains user text.
struct [[nodiscard]] Status {
  Code code = Code::kOk;
  std::string message;

  bool ok() const noexcept { return code == Code::kOk; }
  static Status success() { return {}; }
};

// A value or the Status that explains its absence. `value()` may be called only when `ok()`.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}          // NOLINT: implicit by design
  Result(Status status) : status_(std::move(status)) {}  // NOLINT: implicit by design
  Result(Code code, std::string message) : status_{code, std::move(message)} {}

  bool ok() const noexcept { return value_.has_value(); }
  const Status& status() const noexcept { return status_; }
  T& value() & { return *value_; }
  const T& value() const& { return *value_; }
  T&& value() && { return std::move(*value_); }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace csrm

#endif  // CSRM_STATUS_H_
