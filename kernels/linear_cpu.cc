// Linear on the CPU: each task is a rectangle of y (linear_cut.h), run by one version of the
// arithmetic (linear_tile.h).
#include "linear.h"
#include "linear_block.h"
#include "linear_cut.h"

namespace csrm::kernels {

size_t Linear::n_tasks(int64_t n_rows) const noexcept {
  return LinearCut(n_rows, n_in_, n_panels_, version_->panel_width).n_tasks();
}

void Linear::run_task(const float* x, int64_t n_rows, float* y, size_t i) const noexcept {
  const LinearPart part = LinearCut(n_rows, n_in_, n_panels_, version_->panel_width).part(i);
  LinearBlock b{};
  b.x = x;
  b.floats = floats_.get();
  b.int8s = int8s_.get();
  b.scale = scale_.get();
  b.bias = bias_.get();
  b.y = y;
  b.n_in = n_in_;
  b.n_out = n_out_;
  b.first_row = part.first_row;
  b.end_row = part.end_row;
  b.first_panel = part.first_panel;
  b.end_panel = part.end_panel;
  b.has_gelu = has_gelu_;
  version_->run(b);
}

}  // namespace csrm::kernels
