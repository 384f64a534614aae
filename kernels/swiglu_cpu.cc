// SwiGlu on the CPU: how the rows are cut into tasks; swiglu_tile.h does the arithmetic.
//
// us for 128 rows of 1536, one thread of a Zen 2 that other work shared (gcc 12 -O2, least of 60
// interleaved rounds, one operator with the call of the engine, which is 20 of them): portable 270,
// AVX2 137, the engine's Split, Sigmoid and Mul 290. AVX-512: the same text in vectors of 16, not
// timed.
// Dropped: as the last step of Linear, whose chains rest in y between two parts of K, and y would
// be half as wide as the layer. There is less than 1 % to win: 30 of these are 4.2 ms of the 450 ms
// that SmolLM2-135M took for 127 tokens in the same hour.
#include "row_tasks.h"
#include "swiglu.h"
#include "swiglu_rows.h"

namespace csrm::kernels {
namespace {

SwiGluRows version_of(Isa isa) noexcept {
  switch (vector_isa(isa)) {
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
