// The arithmetic of Linear, written once over a vector type. Included by linear_portable.cc,
// linear_avx2.cc and linear_avx512.cc, each of which first defines
//   CSRM_TARGET  the attribute that lets a function use its instructions
//   Vector       Register, Mask, kWidth and the static functions used below
// so that versions differ in width only. Not to be included anywhere else.
//
// Every element of y is one chain of fused multiply-adds over k = 0 to K - 1 from zero, then bias,
// then GELU: neither its tile, nor a break of the chain through memory, nor a task changes a bit.
#include <algorithm>
#include <cstdint>

#include "linear_block.h"

// Without it gcc keeps the arrays of accumulators in memory at -O2.
#define CSRM_UNROLL _Pragma("GCC unroll 16")

namespace csrm::kernels {
namespace {

constexpr int64_t kPanelWidth = 2 * Vector::kWidth;
constexpr int64_t kDepth = 384;  // how much of K is done for all rows before the next part
constexpr int kTileRows = 6;
constexpr int64_t kLine = 16;  // floats of a cache line

// GELU is x * (1/2 + r) with r = erf(x / sqrt(2)) / 2, and r is x * P(x^2) / Q(x^2) below kFlat,
// +-1/2 above (1/2 - r is less than 2^-26 there). P and Q were fitted for the least largest error
// of x * r, which is 3e-8; rounding makes it 9.4e-7 near x = 5, 2 ulp of the result.
constexpr float kFlat = 5.6f;
constexpr float kTop[] = {0.3989419937133789f,     0.035756830126047134f, 0.00479936134070158f,
                          0.00018909860227722675f, 6.56969041301636e-06f, 2.170616397734193e-08f};
constexpr float kBottom[] = {1.0f,
                             0.25629234313964844f,
                             0.029750589281320572f,
                             0.00199773907661438f,
                             8.059163519646972e-05f,
                             1.183410063276824e-06f};

CSRM_TARGET inline Vector::Register gelu(Vector::Register x) {
  const auto square = Vector::mul(x, x);
  auto top = Vector::set(kTop[5]), bottom = Vector::set(kBottom[5]);
  CSRM_UNROLL
  for (int i = 4; i >= 0; --i) {
    top = Vector::fma(top, square, Vector::set(kTop[i]));
    bottom = Vector::fma(bottom, square, Vector::set(kBottom[i]));
  }
  const auto half = Vector::set(0.5f);
  const auto r = Vector::if_below(x, kFlat, Vector::div(Vector::mul(x, top), bottom),
                                  Vector::with_sign_of(half, x));
  return Vector::mul(x, Vector::add(half, r));
}

// R rows of C panels: y = x * panels + bias for k in [k0, k1). `y` holds the chain's value at k0
// (zero when k0 is 0) and gets that at k1, finished when k1 is K. Row stride of x: K; of y: stride.
template <int R, int C>
CSRM_TARGET inline void tile(const LinearBlock& b, const float* x, const float* panel,
                             const float* bias, int64_t k0, int64_t k1, float* y, int64_t stride) {
  constexpr int W = Vector::kWidth;
  Vector::Register sums[R][2 * C];
  CSRM_UNROLL
  for (int r = 0; r < R; ++r) {
    CSRM_UNROLL
    for (int c = 0; c < 2 * C; ++c) {
      sums[r][c] = k0 == 0 ? Vector::set(0.0f) : Vector::load(y + r * stride + c * W);
    }
  }
  for (int64_t k = k0; k < k1; ++k) {
    Vector::Register columns[2 * C];
    CSRM_UNROLL
    for (int c = 0; c < 2 * C; ++c) {
      columns[c] = Vector::load(panel + (c / 2 * b.n_in + k) * kPanelWidth + c % 2 * W);
    }
    CSRM_UNROLL
    for (int r = 0; r < R; ++r) {
      const Vector::Register value = Vector::set(x[r * b.n_in + k]);
      CSRM_UNROLL
      for (int c = 0; c < 2 * C; ++c) sums[r][c] = Vector::fma(value, columns[c], sums[r][c]);
    }
  }
  CSRM_UNROLL
  for (int r = 0; r < R; ++r) {
    CSRM_UNROLL
    for (int c = 0; c < 2 * C; ++c) {
      Vector::Register sum = sums[r][c];
      if (k1 == b.n_in) {
        sum = Vector::add(sum, Vector::load(bias + c * W));
        if (b.has_gelu) sum = gelu(sum);
      }
      Vector::store(y + r * stride + c * W, sum);
    }
  }
}

// One tile of `rows` rows and `panels` panels; the combinations that spread() makes.
CSRM_TARGET void any_tile(const LinearBlock& b, int64_t rows, int64_t n_panels, const float* x,
                          const float* panel, const float* bias, int64_t k0, int64_t k1, float* y,
                          int64_t stride) {
  switch (rows * 8 + n_panels) {
    case 1 * 8 + 4:
      return tile<1, 4>(b, x, panel, bias, k0, k1, y, stride);
    case 1 * 8 + 1:
      return tile<1, 1>(b, x, panel, bias, k0, k1, y, stride);
    case 2 * 8 + 2:
      return tile<2, 2>(b, x, panel, bias, k0, k1, y, stride);
    case 2 * 8 + 1:
      return tile<2, 1>(b, x, panel, bias, k0, k1, y, stride);
    case 3 * 8 + 2:
      return tile<3, 2>(b, x, panel, bias, k0, k1, y, stride);
    case 3 * 8 + 1:
      return tile<3, 1>(b, x, panel, bias, k0, k1, y, stride);
    case 4 * 8 + 1:
      return tile<4, 1>(b, x, panel, bias, k0, k1, y, stride);
    case 5 * 8 + 1:
      return tile<5, 1>(b, x, panel, bias, k0, k1, y, stride);
    default:
      return tile<6, 1>(b, x, panel, bias, k0, k1, y, stride);
  }
}

// `n_panels` whole panels from `panel` on, all rows of the block.
CSRM_TARGET void run_panels(const LinearBlock& b, int64_t p, int64_t n_panels, int64_t k0,
                            int64_t k1) {
  const float* panel = b.panels + p * b.n_in * kPanelWidth;
  const float* bias = b.bias + p * kPanelWidth;
  const int64_t n_rows = b.end_row - b.first_row;
  const int64_t n_tiles = (n_rows + kTileRows - 1) / kTileRows;
  // While this panel is multiplied the next one comes from memory, a share with every tile. With
  // few tiles there is no time for it, and asking costs more than it brings.
  const float* next = panel + (n_panels * b.n_in + k0) * kPanelWidth;
  const bool is_worth_it = n_tiles >= 4 && p + n_panels < b.end_panel;
  const int64_t n_next = is_worth_it ? (k1 - k0) * kPanelWidth : 0;
  for (int64_t t = 0; t < n_tiles; ++t) {
    for (int64_t i = n_next * t / n_tiles / kLine; i < n_next * (t + 1) / n_tiles / kLine; ++i) {
      Vector::prefetch(next + i * kLine);
    }
    const int64_t row = b.first_row + n_rows * t / n_tiles;
    const int64_t rows = b.first_row + n_rows * (t + 1) / n_tiles - row;
    any_tile(b, rows, n_panels, b.x + row * b.n_in, panel, bias, k0, k1,
             b.y + row * b.n_out + p * kPanelWidth, b.n_out);
  }
}

// The last panel when it is not whole: through a tile of its own, all of K at once.
CSRM_TARGET void run_rest(const LinearBlock& b, int64_t p) {
  const float* panel = b.panels + p * b.n_in * kPanelWidth;
  const int64_t n_columns = b.n_out - p * kPanelWidth;
  for (int64_t row = b.first_row; row < b.end_row; row += kTileRows) {
    const int64_t rows = std::min<int64_t>(kTileRows, b.end_row - row);
    alignas(64) float out[kTileRows * kPanelWidth];
    any_tile(b, rows, 1, b.x + row * b.n_in, panel, b.bias + p * kPanelWidth, 0, b.n_in, out,
             kPanelWidth);
    for (int64_t r = 0; r < rows; ++r) {
      std::copy_n(out + r * kPanelWidth, n_columns, b.y + (row + r) * b.n_out + p * kPanelWidth);
    }
  }
}

CSRM_TARGET void run_block(const LinearBlock& b) {
  const int64_t n_rows = b.end_row - b.first_row;
  // Few rows have few chains of additions: more panels at once hide the latency of each.
  const int64_t at_once = n_rows == 1 ? 4 : n_rows <= 3 ? 2 : 1;
  const int64_t end_whole = std::min(b.end_panel, b.n_out / kPanelWidth);
  for (int64_t k0 = 0; k0 < b.n_in; k0 += kDepth) {
    const int64_t k1 = std::min(b.n_in, k0 + kDepth);
    int64_t p = b.first_panel;
    for (; p + at_once <= end_whole; p += at_once) run_panels(b, p, at_once, k0, k1);
    for (; p < end_whole; ++p) run_panels(b, p, 1, k0, k1);
  }
  if (end_whole < b.end_panel) run_rest(b, end_whole);
}

}  // namespace
}  // namespace csrm::kernels
