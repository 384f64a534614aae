// Rope on the CPU: how the rows are cut into tasks; rope_tile.h does the arithmetic.
//
// LADDER
#include "rope.h"
#include "rope_rows.h"
#include "row_tasks.h"

namespace csrm::kernels {
namespace {

RopeRows version_of(Isa isa) noexcept {
  switch (resolved_isa(isa)) {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    case Isa::kAvx512:
      return kRopeAvx512;
    case Isa::kAvx2:
      return kRopeAvx2;
#endif
    default:
      return kRopePortable;
  }
}

}  // namespace

size_t rope_tasks(const RopeParams& params) noexcept {
  return n_row_tasks(params.n_rows, params.n_columns);
}

void run_rope_task(const RopeParams& params, Isa isa, size_t i) noexcept {
  const RopeRows rows = version_of(isa);
  run_row_task(params.n_rows, rope_tasks(params), i,
               [&](int64_t first, int64_t end) { rows(params, first, end); });
}

}  // namespace csrm::kernels
