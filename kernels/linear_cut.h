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
// What cutting needs to know of a version.
struct LinearPace {
  // Multiply-adds of a task: some 10 us of one core, so that waking a thread and an uneven last
  // task cost little.
  int64_t task_size;
  // Reading and unfolding a weight takes as long as multiplying it with this many rows.
  int64_t rows_per_read;
  int64_t rows_at_once;  // tasks begin at multiples of it
};
// Of versions whose products are those of vectors.
constexpr LinearPace kVectorPace{1 << 20, 4, 1};
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
  int64_t rows_at_once;

  LinearCut(int64_t rows, int64_t n_in, int64_t panels, int64_t panel_width,
            const LinearPace& pace = kVectorPace) noexcept
      : n_rows(rows),
        n_panels(panels),
        n_row_blocks((rows + kBlockRows - 1) / kBlockRows),
        n_groups(0),
        panels_per_group(0),
        rows_at_once(pace.rows_at_once) {
    if (n_row_blocks == 0) return;
    const int64_t block = rows / n_row_blocks + pace.rows_per_read;
    const int64_t panel_size = n_in * panel_width * block;
    n_groups = std::clamp<int64_t>(panel_size * panels / pace.task_size, 1, panels);
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
    return {first_row(block), first_row(block + 1), first_panel,
            std::min(n_panels, first_panel + panels_per_group)};
  }

 private:
  int64_t first_row(int64_t block) const noexcept {
    const int64_t even = n_rows * block / n_row_blocks;
    return std::min(n_rows, (even + rows_at_once - 1) / rows_at_once * rows_at_once);
  }
};

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_LINEAR_CUT_H_
