// How the work of a linear layer on M rows is cut into tasks: each is some rows by some panels of
// columns. Used by linear_cpu.cc and linear_i8_cpu.cc. Not: arithmetic.
#ifndef CSRM_KERNELS_LINEAR_CUT_H_
#define CSRM_KERNELS_LINEAR_CUT_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace csrm::kernels {

// Rows of x that stay in a core's second cache beside a panel.
constexpr int64_t kBlockRows = 128;
// Multiply-adds of a task: about 20 us of one core, so that waking a thread and an uneven last task
// cost little.
constexpr int64_t kTaskSize = 1 << 20;
// Reading and unfolding a weight takes as long as multiplying it with this many rows.
constexpr int64_t kRowsPerRead = 4;
// Few rows are multiplied with several panels at once.
constexpr int64_t kFewRows = 3;
constexpr int64_t kPanelsAtOnce = 4;

// The rectangle of one task.
struct LinearPart {
  int64_t first_row, end_row;
  int64_t first_panel, end_panel;
};

// How rows and panels are shared among tasks; it does not depend on any thread.
struct LinearCut {
  int64_t n_rows, n_panels;
  int64_t n_row_blocks, n_groups, panels_per_group;

  LinearCut(int64_t rows, int64_t n_in, int64_t panels, int64_t panel_width) noexcept
      : n_rows(rows),
        n_panels(panels),
        n_row_blocks((rows + kBlockRows - 1) / kBlockRows),
        n_groups(0),
        panels_per_group(0) {
    if (n_row_blocks == 0) return;
    const int64_t block = rows / n_row_blocks + kRowsPerRead;
    const int64_t panel_size = n_in * panel_width * block;
    n_groups = std::clamp<int64_t>(panel_size * panels / kTaskSize, 1, panels);
    panels_per_group = (panels + n_groups - 1) / n_groups;
    if (rows <= kFewRows) {
      panels_per_group = (panels_per_group + kPanelsAtOnce - 1) / kPanelsAtOnce * kPanelsAtOnce;
    }
    n_groups = (panels + panels_per_group - 1) / panels_per_group;
  }

  size_t n_tasks() const noexcept { return static_cast<size_t>(n_row_blocks * n_groups); }

  LinearPart part(size_t task) const noexcept {
    const int64_t block = static_cast<int64_t>(task) / n_groups;
    const int64_t first_panel = static_cast<int64_t>(task) % n_groups * panels_per_group;
    return {n_rows * block / n_row_blocks, n_rows * (block + 1) / n_row_blocks, first_panel,
            std::min(n_panels, first_panel + panels_per_group)};
  }
};

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_LINEAR_CUT_H_
