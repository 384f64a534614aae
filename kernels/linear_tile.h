// The arithmetic of Linear, written once over a vector type. Included by linear_portable.cc,
// linear_avx2.cc and linear_avx512.cc after the vectors of that version (vector_*.h), so that
// versions differ in width only.
//
// Every element of y is one chain of multiply-adds over k = 0 to K - 1 from zero, one more with
// scale and bias, then GELU: neither its tile, nor a break of the chain through memory, nor a task
// changes a bit. Int8 weights are multiplied as floats and scaled at the end of the chain.
//
// The ladder; us for 1 / 8 / 32 / 128 rows at K = 384, N = 1152, weights from memory, one thread of
// a Zen 2 (gcc 12 -O2; best of many rounds on a busy machine). 128 rows at the measured peak: 1043.
//   1. vectors of 4 without intrinsics, int8 panels: 205 / 391 / 1159 / -. The portable version.
//   2. AVX2 and FMA, tiles of 6 x 16 (12 chains hide the latency of FMA), weights unfolded to float
//      panels beforehand: 64 / 170 / 371 / 1232. Few rows wait for memory: 1.8 MB of weights.
//   3. each tile asks for a share of the next panel: 32 rows 355 -> 346, 128 rows 1217 -> 1186. It
//      costs more than it brings with fewer than 4 tiles.
//   4. int8 panels: the first tile of a panel unfolds it and leaves floats in 24 KiB of stack for
//      those below: 38 / 107 / 306 / 1162. Unfolding hides under the FMAs; a quarter of the memory
//      traffic, and a whole MiniLM-L6 stays in a third cache of 16 MB.
//   5. with fewer rows than columns the rows stay in registers: 1 row 38 -> 34, 3 rows 68 -> 52.
//   6. output lines asked for before a tile, blocks of 128 rows: 128 rows 1171 -> 1144.
// Tried and dropped: huge pages for float panels (1 to 5 % without step 3, nothing with it); half
// as much of K at a time (5 % slower; twice as much is equal). GELU takes about 14 cycles for 8
// values.
#include <algorithm>
#include <cstdint>

#include "gelu.h"
#include "linear_block.h"
#include "unroll.h"

namespace csrm::kernels {
namespace {

constexpr int64_t kPanelWidth = 2 * Vector::kWidth;
constexpr int64_t kDepth = 6144 / kPanelWidth;  // so much of K at a time: 24 KiB of floats
constexpr int kTileRows = 6;

// Where a tile finds its columns of W: as floats, as int8, or as int8 that it also leaves behind as
// floats for the tiles below it.
enum class Source { kFloats, kInt8, kInt8Kept };

// A part of a chain: R rows of C panels over `depth` values of k from k0 on. Pointers are those of
// the first row, first panel and k0.
struct Tile {
  const float* x;  // row stride n_in
  const float* floats;
  const int8_t* int8s;
  float* kept;           // [depth, kPanelWidth]
  int64_t panel_stride;  // from one panel to the next, in elements
  const float* scale;
  const float* bias;
  float* y;  // holds the chain's value at k0 unless that is its start; gets that at the end
  int64_t y_stride;
  int64_t depth;
  bool is_first, is_last;
};

template <int R, int C, Source S>
CSRM_TARGET inline void tile(const LinearBlock& b, const Tile& t) {
  constexpr int W = Vector::kWidth;
  Vector::Register sums[R][2 * C];
  CSRM_UNROLL
  for (int r = 0; r < R; ++r) {
    Vector::prefetch(reinterpret_cast<const char*>(t.y + r * t.y_stride));
    CSRM_UNROLL
    for (int c = 0; c < 2 * C; ++c) {
      sums[r][c] = t.is_first ? Vector::set(0.0f) : Vector::load(t.y + r * t.y_stride + c * W);
    }
  }
  const float* x = t.x;
  for (int64_t k = 0; k < t.depth; ++k) {
    // The fewer of rows and columns stay in registers, the others pass by.
    Vector::Register values[R];
    if (R < 2 * C) {
      CSRM_UNROLL
      for (int r = 0; r < R; ++r) values[r] = Vector::set(x[r * b.n_in + k]);
    }
    Vector::Register columns[2 * C];
    CSRM_UNROLL
    for (int c = 0; c < 2 * C; ++c) {
      const int64_t at = c / 2 * t.panel_stride + k * kPanelWidth + c % 2 * W;
      columns[c] = S == Source::kFloats ? Vector::load(t.floats + at) : Vector::load(t.int8s + at);
      if (S == Source::kInt8Kept) Vector::store(t.kept + at, columns[c]);
      if (R < 2 * C) {
        CSRM_UNROLL
        for (int r = 0; r < R; ++r) sums[r][c] = Vector::fma(values[r], columns[c], sums[r][c]);
      }
    }
    if (R < 2 * C) continue;
    CSRM_UNROLL
    for (int r = 0; r < R; ++r) {
      values[r] = Vector::set(x[r * b.n_in + k]);
      CSRM_UNROLL
      for (int c = 0; c < 2 * C; ++c) sums[r][c] = Vector::fma(values[r], columns[c], sums[r][c]);
    }
  }
  CSRM_UNROLL
  for (int r = 0; r < R; ++r) {
    CSRM_UNROLL
    for (int c = 0; c < 2 * C; ++c) {
      Vector::Register sum = sums[r][c];
      if (t.is_last) {
        sum = Vector::fma(sum, Vector::load(t.scale + c * W), Vector::load(t.bias + c * W));
        if (b.has_gelu) sum = gelu<Fastest>(sum);
      }
      Vector::store(t.y + r * t.y_stride + c * W, sum);
    }
  }
}

// The tile of `rows` rows and `n_panels` panels; all combinations that the callers make.
template <Source S>
CSRM_TARGET void any_tile(const LinearBlock& b, int64_t rows, int64_t n_panels, const Tile& t) {
  switch (rows * 8 + n_panels) {
    case 1 * 8 + 4:
      return tile<1, 4, S>(b, t);
    case 1 * 8 + 1:
      return tile<1, 1, S>(b, t);
    case 2 * 8 + 2:
      return tile<2, 2, S>(b, t);
    case 2 * 8 + 1:
      return tile<2, 1, S>(b, t);
    case 3 * 8 + 2:
      return tile<3, 2, S>(b, t);
    case 3 * 8 + 1:
      return tile<3, 1, S>(b, t);
    case 4 * 8 + 1:
      return tile<4, 1, S>(b, t);
    case 5 * 8 + 1:
      return tile<5, 1, S>(b, t);
    default:
      return tile<6, 1, S>(b, t);
  }
}

// The tile at (row 0, panel p, k0) of the block's matrices.
CSRM_TARGET Tile tile_at(const LinearBlock& b, int64_t p, int64_t k0, int64_t k1) {
  const int64_t at = (p * b.n_in + k0) * kPanelWidth;
  Tile t{};
  t.x = b.x + k0;
  if (b.floats != nullptr) t.floats = b.floats + at;
  if (b.int8s != nullptr) t.int8s = b.int8s + at;
  t.panel_stride = b.n_in * kPanelWidth;
  t.scale = b.scale + p * kPanelWidth;
  t.bias = b.bias + p * kPanelWidth;
  t.y = b.y + p * kPanelWidth;
  t.y_stride = b.n_out;
  t.depth = k1 - k0;
  t.is_first = k0 == 0;
  t.is_last = k1 == b.n_in;
  return t;
}

// Asks for lines [first, end) / n of the `n_bytes` at `start`.
CSRM_TARGET void prefetch(const char* start, int64_t n_bytes, int64_t share, int64_t n_shares) {
  constexpr int64_t kLineBytes = 64;
  const int64_t n_lines = n_bytes / kLineBytes;
  const int64_t end = n_lines * (share + 1) / n_shares;
  for (int64_t i = n_lines * share / n_shares; i < end; ++i) {
    Vector::prefetch(start + i * kLineBytes);
  }
}

// `n_panels` whole panels from `p` on, all rows of the block, k in [k0, k1).
CSRM_TARGET void run_panels(const LinearBlock& b, int64_t p, int64_t n_panels, int64_t k0,
                            int64_t k1) {
  alignas(64) float kept[kDepth * kPanelWidth];
  const Tile at = tile_at(b, p, k0, k1);
  const int64_t n_rows = b.end_row - b.first_row;
  const int64_t n_tiles = (n_rows + kTileRows - 1) / kTileRows;
  const bool is_kept = b.floats == nullptr && n_panels == 1 && n_tiles > 1;
  // While this panel is multiplied the next one comes from memory, a share with every tile. With
  // few tiles there is no time for it, and asking costs more than it brings.
  const bool is_worth_it = n_tiles >= 4 && p + n_panels < b.end_panel;
  const int64_t n_next = is_worth_it ? at.depth * kPanelWidth : 0;
  for (int64_t i = 0; i < n_tiles; ++i) {
    const int64_t row = b.first_row + n_rows * i / n_tiles;
    const int64_t rows = b.first_row + n_rows * (i + 1) / n_tiles - row;
    Tile t = at;
    t.x += row * b.n_in;
    t.y += row * b.n_out;
    t.kept = kept;
    if (b.floats != nullptr) {
      prefetch(reinterpret_cast<const char*>(at.floats + n_panels * at.panel_stride),
               n_next * static_cast<int64_t>(sizeof(float)), i, n_tiles);
      any_tile<Source::kFloats>(b, rows, n_panels, t);
      continue;
    }
    prefetch(reinterpret_cast<const char*>(at.int8s + n_panels * at.panel_stride), n_next, i,
             n_tiles);
    if (!is_kept) {
      any_tile<Source::kInt8>(b, rows, n_panels, t);
    } else if (i == 0) {
      any_tile<Source::kInt8Kept>(b, rows, 1, t);
    } else {
      t.floats = kept;
      any_tile<Source::kFloats>(b, rows, 1, t);
    }
  }
}

// The last panel when it is not whole: through a tile of its own, all of K at once.
CSRM_TARGET void run_rest(const LinearBlock& b, int64_t p) {
  const int64_t n_columns = b.n_out - p * kPanelWidth;
  for (int64_t row = b.first_row; row < b.end_row; row += kTileRows) {
    const int64_t rows = std::min<int64_t>(kTileRows, b.end_row - row);
    alignas(64) float out[kTileRows * kPanelWidth];
    Tile t = tile_at(b, p, 0, b.n_in);
    t.x += row * b.n_in;
    t.y = out;
    t.y_stride = kPanelWidth;
    if (b.floats != nullptr) {
      any_tile<Source::kFloats>(b, rows, 1, t);
    } else {
      any_tile<Source::kInt8>(b, rows, 1, t);
    }
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
