// Rope on the CPU: how the rows are cut into tasks; rope_tile.h does the arithmetic.
//
// us for 128 rows of 12 heads of 64 and 192 more columns, one thread of a Zen 2 that other work
// shared (gcc 12 -O2, least of 40 interleaved rounds, 16 operators in one model): portable 84, AVX2
// 80, ONNX's operators 252 in the engine, which take cosines and sines once for all 16. With norms,
// 24 heads of 128: 1000 / 361 / 3883. AVX-512: the same text in vectors of 16, not timed.
// Of the first 80 most is the C library's: 32 cosines and sines a row. Not done: taking them once
// for all layers, or in vectors. 31 of these are 2 ms of the 450 ms that SmolLM2-135M took for 127
// tokens in the same hour, and the engine's own Cos gives a value other bits in a vector than
// alone.
#include "rope.h"
#include "rope_rows.h"
#include "row_tasks.h"

namespace csrm::kernels {
namespace {

RopeRows version_of(Isa isa) noexcept {
  switch (vector_isa(isa)) {
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
