// SwiGlu on the CPU: how the rows are cut into tasks; swiglu_tile.h does the arithmetic.
//
// LADDER
#include "row_tasks.h"
#include "swiglu.h"
#include "swiglu_rows.h"

namespace csrm::kernels {
namespace {

SwiGluRows version_of(Isa isa) noexcept {
  switch (resolved_isa(isa)) {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    case Isa::kAvx512:
      return kSwiGluAvx512;
    case Isa::kAvx2:
      return kSwiGluAvx2;
#endif
    default:
      return kSwiGluPortable;
  }
}

}  // namespace

size_t swiglu_tasks(const SwiGluParams& params) noexcept {
  return n_row_tasks(params.n_rows, params.n_columns);
}

void run_swiglu_task(const SwiGluParams& params, Isa isa, size_t i) noexcept {
  const SwiGluRows rows = version_of(isa);
  run_row_task(params.n_rows, swiglu_tasks(params), i,
               [&](int64_t first, int64_t end) { rows(params, first, end); });
}

}  // namespace csrm::kernels
