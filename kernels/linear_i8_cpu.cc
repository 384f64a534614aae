// LinearI8 on the CPU: which versions run here, and how rounding and products are cut into tasks.
// Each task is run by one version of the arithmetic (linear_i8_tile.h).
#include <algorithm>

#include "linear_cut.h"
#include "linear_i8.h"
#include "linear_i8_block.h"

namespace csrm::kernels {
namespace {

// Values of a task that rounds: some microseconds of one core, so that waking a thread pays.
constexpr int64_t kRoundSize = 1 << 15;

}  // namespace

bool linear_i8_supported(Isa isa) noexcept {
  if (isa != Isa::kAvx512) return isa_supported(isa);  // a CPU with AMX has VNNI
#if defined(CSRM_EMULATED_INTRINSICS)
  return isa_supported(isa);
#elif defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
  return isa_supported(isa) && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

bool linear_i8_has_vnni() noexcept {
  const Isa best = resolved_isa(Isa::kBest);
  return best == Isa::kAmx || (best == Isa::kAvx512 && linear_i8_supported(best));
}

size_t LinearI8::scales_size(int64_t n_rows) noexcept {
  return line_bytes<float>(static_cast<size_t>(n_rows));
}

size_t LinearI8::scratch_size(int64_t n_rows) const noexcept {
  return scales_size(n_rows) + static_cast<size_t>(n_rows * row_size_);
}

size_t LinearI8::n_round_tasks(int64_t n_rows) const noexcept {
  return static_cast<size_t>(std::min(n_rows, (n_rows * n_in_ + kRoundSize - 1) / kRoundSize));
}

void LinearI8::round_rows(const float* x, int64_t n_rows, void* scratch, int64_t first_row,
                          int64_t end_row) const noexcept {
  RoundedRows rows{};
  rows.x = x;
  rows.scale = static_cast<float*>(scratch);
  rows.values = static_cast<char*>(scratch) + scales_size(n_rows);
  rows.n_in = n_in_;
  rows.row_size = row_size_;
  rows.first_row = first_row;
  rows.end_row = end_row;
  version_->round(rows, levels_);
}

void LinearI8::round_task(const float* x, int64_t n_rows, void* scratch, size_t i) const noexcept {
  const auto n_tasks = static_cast<int64_t>(n_round_tasks(n_rows));
  const auto task = static_cast<int64_t>(i);
  round_rows(x, n_rows, scratch, n_rows * task / n_tasks, n_rows * (task + 1) / n_tasks);
}

size_t LinearI8::n_tasks(int64_t n_rows) const noexcept {
  return LinearCut(n_rows, n_in_, n_panels_, version_->panel_width, version_->pace).n_tasks();
}

void LinearI8::run_task(const void* scratch, int64_t n_rows, float* y, size_t i) const noexcept {
  run(scratch, n_rows, y,
      LinearCut(n_rows, n_in_, n_panels_, version_->panel_width, version_->pace).part(i));
}

void LinearI8::run_columns(const void* scratch, int64_t n_rows, float* y, int64_t i,
                           int64_t n_parts) const noexcept {
  const LinearPart part{0, n_rows, n_panels_ * i / n_parts, n_panels_ * (i + 1) / n_parts};
  if (part.first_panel < part.end_panel) run(scratch, n_rows, y, part);
}

void LinearI8::run(const void* scratch, int64_t n_rows, float* y,
                   const LinearPart& part) const noexcept {
  LinearI8Block b{};
  b.x = static_cast<const char*>(scratch) + scales_size(n_rows);
  b.x_scale = static_cast<const float*>(scratch);
  b.values = values_.get();
  b.start = start_.get();
  b.scale = scale_.get();
  b.bias = bias_.get();
  b.y = y;
  b.n_panels = n_panels_;
  b.n_groups = n_groups_;
  b.row_size = row_size_;
  b.n_out = n_out_;
  b.first_row = part.first_row;
  b.end_row = part.end_row;
  b.first_panel = part.first_panel;
  b.end_panel = part.end_panel;
  b.has_gelu = has_gelu_;
  version_->run(b);
}

}  // namespace csrm::kernels
