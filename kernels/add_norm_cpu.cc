// AddNorm on the CPU: how the rows are cut into tasks; add_norm_tile.h does the arithmetic.
//
// us for 128 rows of 384, one thread of a Zen 2 that other work shared (gcc 12 -O2, least of 100
// interleaved rounds, 16 operators in one model): portable 37.7, AVX2 27.3. Of one row: 2.9 and
// 2.8, nearly all of it the engine's dispatch. RMSNorm of 128 rows of 576: 43 and 36 (least of 60).
// AVX-512: the same text in vectors of 16, not timed.
#include "add_norm.h"
#include "add_norm_rows.h"
#include "row_tasks.h"

namespace csrm::kernels {
namespace {

AddNormRows version_of(Isa isa) noexcept {
  switch (vector_isa(isa)) {
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
  return n_row_tasks(params.n_rows, params.n_columns);
}

void run_add_norm_task(const AddNormParams& params, Isa isa, size_t i) noexcept {
  const AddNormRows rows = version_of(isa);
  run_row_task(params.n_rows, add_norm_tasks(params), i,
               [&](int64_t first, int64_t end) { rows(params, first, end); });
}

}  // namespace csrm::kernels
