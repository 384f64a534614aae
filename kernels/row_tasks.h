// How kernels that go row by row (add_norm_cpu.cc, rope_cpu.cc, swiglu_cpu.cc) are cut into tasks.
// Not: arithmetic, or threads.
#ifndef CSRM_KERNELS_ROW_TASKS_H_
#define CSRM_KERNELS_ROW_TASKS_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace csrm::kernels {

// Into how many tasks n_rows rows of n_columns elements are cut; no more than rows.
inline size_t n_row_tasks(int64_t n_rows, int64_t n_columns) noexcept {
  // Elements of a task: some microseconds of one core, so that waking a thread pays.
  constexpr int64_t kTaskSize = 1 << 14;
  return static_cast<size_t>(std::min(n_rows, (n_rows * n_columns + kTaskSize - 1) / kTaskSize));
}

// Calls run(first, end) with the rows of task i < n_tasks.
template <typename Run>
void run_row_task(int64_t n_rows, size_t n_tasks, size_t i, Run run) {
  const auto n = static_cast<int64_t>(n_tasks), task = static_cast<int64_t>(i);
  run(n_rows * task / n, n_rows * (task + 1) / n);
}

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_ROW_TASKS_H_
