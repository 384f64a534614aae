// Linear on the CPU: how the work on M rows is cut into tasks. Each task is a rectangle of y, run
// by one version of the arithmetic (linear_tile.h).
#include <algorithm>

#include "linear.h"
#include "linear_block.h"

namespace csrm::kernels {
namespace {

// Rows of x that stay in a core's second cache beside a panel while K is done part by part.
constexpr int64_t kBlockRows = 128;
// Multiply-adds of a task: about 20 us of one core, so that waking a thread and an uneven last task
// cost little.
constexpr int64_t kTaskSize = 1 << 20;
// Reading and unfolding a weight takes as long as multiplying it with this many rows.
constexpr int64_t kRowsPerRead = 4;
// Few rows are multiplied with several panels at once (run_block).
constexpr int64_t kFewRows = 3;
constexpr int64_t kPanelsAtOnce = 4;

}  // namespace

Linear::Cut Linear::cut(int64_t n_rows) const noexcept {
  const int64_t n_row_blocks = (n_rows + kBlockRows - 1) / kBlockRows;
  if (n_row_blocks == 0) return {0, 0, 0};
  const int64_t rows = n_rows / n_row_blocks + kRowsPerRead;
  const int64_t panel_size = n_in_ * version_->panel_width * rows;
  int64_t n_groups = std::clamp<int64_t>(panel_size * n_panels_ / kTaskSize, 1, n_panels_);
  int64_t panels_per_group = (n_panels_ + n_groups - 1) / n_groups;
  if (n_rows <= kFewRows) {
    panels_per_group = (panels_per_group + kPanelsAtOnce - 1) / kPanelsAtOnce * kPanelsAtOnce;
  }
  n_groups = (n_panels_ + panels_per_group - 1) / panels_per_group;
  return {n_row_blocks, n_groups, panels_per_group};
}

size_t Linear::n_tasks(int64_t n_rows) const noexcept {
  const Cut c = cut(n_rows);
  return static_cast<size_t>(c.n_row_blocks * c.n_groups);
}

void Linear::run_task(const float* x, int64_t n_rows, float* y, size_t i) const noexcept {
  const Cut c = cut(n_rows);
  const int64_t block = static_cast<int64_t>(i) / c.n_groups;
  const int64_t group = static_cast<int64_t>(i) % c.n_groups;
  LinearBlock b{};
  b.x = x;
  b.floats = floats_.get();
  b.int8s = int8s_.get();
  b.scale = scale_.get();
  b.bias = bias_.get();
  b.y = y;
  b.n_in = n_in_;
  b.n_out = n_out_;
  b.first_row = n_rows * block / c.n_row_blocks;
  b.end_row = n_rows * (block + 1) / c.n_row_blocks;
  b.first_panel = group * c.panels_per_group;
  b.end_panel = std::min(n_panels_, b.first_panel + c.panels_per_group);
  b.has_gelu = has_gelu_;
  version_->run(b);
}

}  // namespace csrm::kernels
