// AddNorm on the CPU: how the rows are cut into tasks; add_norm_tile.h does the arithmetic.
//
// us for 128 rows of 384, one thread of a Zen 2 that other work shared (gcc 12 -O2, least of 100
// interleaved rounds, 16 operators in one model): portable 37.7, AVX2 27.3. Of one row: 2.9 and
// 2.8, nearly all of it the engine's dispatch. AVX-512: the same text in vectors of 16, not timed.
#include <algorithm>

#include "add_norm.h"
#include "add_norm_rows.h"

namespace csrm::kernels {
namespace {

// Elements of a task: some microseconds of one core, so that waking a thread pays.
constexpr int64_t kTaskSize = 1 << 14;

AddNormRows version_of(Isa isa) noexcept {
  switch (resolved_isa(isa)) {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    case Isa::kAvx512:
      return kAddNormAvx512;
    case Isa::kAvx2:
      return kAddNormAvx2;
#endif
    default:
      return kAddNormPortable;
  }
}

}  // namespace

size_t add_norm_tasks(const AddNormParams& params) noexcept {
  const int64_t n = params.n_rows * params.n_columns;
  return static_cast<size_t>(std::min(params.n_rows, (n + kTaskSize - 1) / kTaskSize));
}

void run_add_norm_task(const AddNormParams& params, Isa isa, size_t i) noexcept {
  const auto n_tasks = static_cast<int64_t>(add_norm_tasks(params));
  const auto task = static_cast<int64_t>(i);
  const int64_t end = params.n_rows * (task + 1) / n_tasks;
  version_of(isa)(params, params.n_rows * task / n_tasks, end);
}

}  // namespace csrm::kernels
