// HalfKeyValue on the CPU: argument checks, and how the tokens are cut into tasks;
// half_key_value_tile.h does the work. Messages name numbers, never data.
#include "half_key_value.h"

#include <algorithm>
#include <string>

#include "half_key_value_rows.h"

namespace csrm::kernels {
namespace {

// Tokens of a task: some microseconds of one core, so that waking a thread pays, and small enough
// that their states stay in a cache while each head passes over them.
constexpr int64_t kTaskTokens = 16;

Status bad_argument(const std::string& message) {
  return {Code::kBadArgument, "HalfKeyValue: " + message};
}

Status check_columns(const char* name, int64_t offset, int64_t n, int64_t width) {
  if (offset >= 0 && offset <= width - n) return Status::success();
  return bad_argument(std::string(name) + " is " + std::to_string(offset) + " and " +
                      std::to_string(n) + " columns are read; states has " + std::to_string(width));
}

HalfKeyValueRows version_of(Isa isa) noexcept {
  switch (vector_isa(isa)) {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    case Isa::kAvx512:
      return kHalfKeyValueAvx512;
    case Isa::kAvx2:
      return kHalfKeyValueAvx2;
#endif
    default:
      return kHalfKeyValuePortable;
  }
}

int64_t tasks_of_entry(const HalfKeyValueParams& p) noexcept {
  return (p.n_tokens + kTaskTokens - 1) / kTaskTokens;
}

}  // namespace

Status check_half_key_value(const HalfKeyValueParams& p, Isa isa) {
  if (p.n_batch < 0 || p.n_tokens < 0 || p.n_kv_heads < 1 || p.head_dim < 1) {
    return bad_argument("states has " + std::to_string(p.n_batch) + " rows of " +
                        std::to_string(p.n_tokens) + " tokens, " + std::to_string(p.n_kv_heads) +
                        " heads of " + std::to_string(p.head_dim) +
                        "; give counts >= 0 and sizes >= 1");
  }
  const int64_t n_columns = p.n_kv_heads * p.head_dim;
  for (Status status : {check_columns("key_offset", p.key_offset, n_columns, p.width),
                        check_columns("value_offset", p.value_offset, n_columns, p.width)}) {
    if (!status.ok()) return status;
  }
  if (p.n_batch * p.n_tokens > 0 && !(p.states && p.key && p.value)) {
    return bad_argument("a pointer is null; give every array of HalfKeyValueParams");
  }
  return check_isa("HalfKeyValue", isa);
}

size_t half_key_value_tasks(const HalfKeyValueParams& params) noexcept {
  return static_cast<size_t>(params.n_batch * tasks_of_entry(params));
}

void run_half_key_value_task(const HalfKeyValueParams& params, Isa isa, size_t i) noexcept {
  const int64_t n_tasks = tasks_of_entry(params);
  const int64_t first = static_cast<int64_t>(i) % n_tasks * kTaskTokens;
  const int64_t end = std::min(first + kTaskTokens, params.n_tokens);
  version_of(isa)(params, static_cast<int64_t>(i) / n_tasks, first, end);
}

}  // namespace csrm::kernels
