// The arithmetic of LinearI8, written once over a vector of floats (Vector, vector_*.h) and the dot
// products of integers of a version (a type with the members of Portable in linear_i8_portable.cc).
// Included by linear_i8_portable.cc, _avx2.cc and _avx512.cc, and nowhere else.
//
// Sums of integers are exact and the fp32 around them has one order, so that all versions agree to
// the bit; the reduction of |x| to its largest does not depend on any order.
//
// The ladder, beside Linear in the same version; us of processor time for 1 / 8 / 32 / 128 rows at
// K = 384, N = 1152, Zen 2 (gcc 12 -O2, medians of 22 interleaved rounds on a busy machine):
//   1. vectors of 4 without intrinsics. The portable version; not timed.
//   2. AVX2, pairs of 16-bit numbers (vpmaddwd), tiles of 6 x 16: 35 / 95 / 329 / 1229, Linear 46 /
//      122 / 349 / 1256. Many rows end at one vpmaddwd a cycle, which is as many products as two
//      FMAs; few rows gain, for a byte becomes a word in one step and a float in two.
//   3. AVX-512 VNNI: twice the products of an FMA with words, four times with bytes; gcc 12 copies
//      every sum in each step. On Emerald Rapids 128 rows take 496 with words and 259 with bytes,
//      two thirds of what its registers make.
//   4. tiles: linear_i8_amx.cc, 90.
// Not built: vpmaddubsw with the sign of one side moved to the other. It is exact for +-127, but
// with vpsignb and vpmaddwd it takes as many steps as step 2 and allows no more than 8 bits.
#include <algorithm>
#include <cstdint>

#include "gelu.h"
#include "linear_i8_block.h"
#include "linear_i8_rows.h"
#include "unroll.h"

namespace csrm::kernels {
namespace {

constexpr int64_t kPanelWidth = 2 * kWidth;
constexpr int kTileRows = 6;

// R rows of C panels; pointers are those of the first row and panel.
struct Tile {
  const char* x;
  const float* x_scale;
  const int8_t* values;
  int64_t panel_size;  // of values
  const int32_t* start;
  const float* scale;
  const float* bias;
  float* y;
  int64_t y_stride;
};

template <typename Integers, int R, int C>
CSRM_TARGET inline void tile(const LinearI8Block& b, const Tile& t) {
  using Value = typename Integers::Value;
  constexpr int64_t kGroup = Integers::kGroup;
  typename Integers::Register sums[R][2 * C];
  CSRM_UNROLL
  for (int r = 0; r < R; ++r) {
    Vector::prefetch(reinterpret_cast<const char*>(t.y + r * t.y_stride));
    CSRM_UNROLL
    for (int c = 0; c < 2 * C; ++c) sums[r][c] = Integers::load(t.start + c * kWidth);
  }
  const auto* x = reinterpret_cast<const Value*>(t.x);
  const int64_t x_stride = b.row_size / static_cast<int64_t>(sizeof(Value));
  for (int64_t g = 0; g < b.n_groups; ++g) {
    typename Integers::Register columns[2 * C];
    CSRM_UNROLL
    for (int c = 0; c < 2 * C; ++c) {
      const int64_t at = c / 2 * t.panel_size + (g * kPanelWidth + c % 2 * kWidth) * kGroup;
      columns[c] = Integers::load(t.values + at);
    }
    CSRM_UNROLL
    for (int r = 0; r < R; ++r) {
      const auto one = Integers::set(x + r * x_stride + g * kGroup);
      CSRM_UNROLL
      for (int c = 0; c < 2 * C; ++c) sums[r][c] = Integers::dot(sums[r][c], one, columns[c]);
    }
  }
  CSRM_UNROLL
  for (int r = 0; r < R; ++r) {
    const auto x_scale = Vector::set(t.x_scale[r]);
    CSRM_UNROLL
    for (int c = 0; c < 2 * C; ++c) {
      auto y = dequantised(Integers::to_floats(sums[r][c]), x_scale,
                           Vector::load(t.scale + c * kWidth), Vector::load(t.bias + c * kWidth));
      if (b.has_gelu) y = gelu<Once>(y);
      Vector::store(t.y + r * t.y_stride + c * kWidth, y);
    }
  }
}

// The tile of `rows` rows and `n_panels` panels; all combinations that the callers make.
template <typename I>
CSRM_TARGET void any_tile(const LinearI8Block& b, int64_t rows, int64_t n_panels, const Tile& t) {
  switch (rows * 8 + n_panels) {
    case 1 * 8 + 4:
      return tile<I, 1, 4>(b, t);
    case 1 * 8 + 1:
      return tile<I, 1, 1>(b, t);
    case 2 * 8 + 2:
      return tile<I, 2, 2>(b, t);
    case 2 * 8 + 1:
      return tile<I, 2, 1>(b, t);
    case 3 * 8 + 2:
      return tile<I, 3, 2>(b, t);
    case 3 * 8 + 1:
      return tile<I, 3, 1>(b, t);
    case 4 * 8 + 1:
      return tile<I, 4, 1>(b, t);
    case 5 * 8 + 1:
      return tile<I, 5, 1>(b, t);
    default:
      return tile<I, 6, 1>(b, t);
  }
}

// The tile at (row, panel p) of the block's matrices.
template <typename Integers>
CSRM_TARGET Tile tile_at(const LinearI8Block& b, int64_t row, int64_t p) {
  Tile t{};
  t.x = b.x + row * b.row_size;
  t.x_scale = b.x_scale + row;
  t.panel_size = b.n_groups * kPanelWidth * Integers::kGroup;
  t.values = b.values + p * t.panel_size;
  t.start = b.start + p * kPanelWidth;
  t.scale = b.scale + p * kPanelWidth;
  t.bias = b.bias + p * kPanelWidth;
  t.y = b.y + row * b.n_out + p * kPanelWidth;
  t.y_stride = b.n_out;
  return t;
}

// The last panel when it is not whole: through a tile of its own.
template <typename Integers>
CSRM_TARGET void run_rest(const LinearI8Block& b, int64_t p) {
  const int64_t n_columns = b.n_out - p * kPanelWidth;
  for (int64_t row = b.first_row; row < b.end_row; row += kTileRows) {
    const int64_t rows = std::min<int64_t>(kTileRows, b.end_row - row);
    alignas(64) float out[kTileRows * kPanelWidth];
    Tile t = tile_at<Integers>(b, row, p);
    t.y = out;
    t.y_stride = kPanelWidth;
    any_tile<Integers>(b, rows, 1, t);
    for (int64_t r = 0; r < rows; ++r) {
      std::copy_n(out + r * kPanelWidth, n_columns, b.y + (row + r) * b.n_out + p * kPanelWidth);
    }
  }
}

template <typename Integers>
CSRM_TARGET void run_block(const LinearI8Block& b) {
  const int64_t n_rows = b.end_row - b.first_row;
  const int64_t n_tiles = (n_rows + kTileRows - 1) / kTileRows;
  // Few rows have few chains of additions: more panels at once hide the latency of each.
  const int64_t at_once = n_rows == 1 ? 4 : n_rows <= 3 ? 2 : 1;
  const int64_t end_whole = std::min(b.end_panel, b.n_out / kPanelWidth);
  for (int64_t p = b.first_panel; p < end_whole;) {
    const int64_t n_panels = p + at_once <= end_whole ? at_once : 1;
    for (int64_t i = 0; i < n_tiles; ++i) {
      const int64_t row = b.first_row + n_rows * i / n_tiles;
      const int64_t rows = b.first_row + n_rows * (i + 1) / n_tiles - row;
      any_tile<Integers>(b, rows, n_panels, tile_at<Integers>(b, row, p));
    }
    p += n_panels;
  }
  if (end_whole < b.end_panel) run_rest<Integers>(b, end_whole);
}

template <typename Integers>
constexpr LinearI8Version version() {
  constexpr int64_t kGroup = Integers::kGroup;
  return {kPanelWidth,
          kGroup,
          kGroup,
          Integers::kValueSize,
          Integers::kOffset,
          kVectorPace,
          round_rows<Integers>,
          run_block<Integers>};
}

}  // namespace
}  // namespace csrm::kernels
