// LinearI8 with AMX: products of tiles of 16 rows and 16 columns over 64 values of k. Rounding and
// GELU are those of all versions (linear_i8_rows.h, gelu.h). Not: whether this CPU has tiles
// (amx.h).
//
// 12 bits are multiplied as two bytes: q = 16 * high + low with high in [-128, 127] and low in
// [0, 15], so sum = 16 * (high . values) + (low . values), of which only the whole must fit 32
// bits.
//
// The ladder; us of processor time for 128 rows at K = 384, N = 1152 in a core's second cache,
// products and y without rounding (gcc 12, Emerald Rapids, whose two cores other work shared; lower
// fifths of interleaved rounds). In registers alone these products take 38 to 49, as the clock
// goes.
//   1. blocks of 16 rows (both parts) by 32 columns, a block's sums to y after it: 87.
//   2. y of the last block between the steps of this one: 75. A block's end still waits for its
//      sums to leave the tiles, which the next one needs at once.
//   3. the right 16 columns half a depth behind the left: 69. One side multiplies while the other's
//      sums leave. With panels in the inner loop the rows of x are loaded once for all columns.
//   4. as tasks of LinearCut, with rows and columns that are not whole: 82 to 90; in tasks of half
//      the size 93. Without writing y it is 78. Weights of the next task are fetched ahead, which
//      costs 4 here and saves 12 to 17 of 118 where they come from the third cache. This version.
// Dropped: two blocks of rows for each panel (87, where 3 took 83 in the same run: x is loaded
// twice in half of the steps); fetching lines of y ahead (95); x in whole tiles (as fast as rows an
// odd number of lines apart); AVX-512 for few rows, which needs other panels: with weights from the
// third cache one row takes 40 with pairs of words and 43 here, eight take 97 and 53.
#include "amx.h"

#if CSRM_HAS_AMX

#define CSRM_TARGET_AVX512 "avx512f,avx512bw,avx512vnni,avx2,fma,amx-tile,amx-int8"
// clang-format off: the vectors come first
#include "vector_avx512.h"
#include "linear_i8_rows.h"
// clang-format on

#include "gelu.h"

namespace csrm::kernels {
namespace {

constexpr int64_t kRowBytes = 64;  // of a tile
constexpr int64_t kTileRows = 16;  // of x, and of groups of k in a tile of weights
constexpr int64_t kDepth = 64;     // values of k in a row of a tile of x
constexpr int64_t kGroup = 4;      // values of k next to each other in a tile of weights
constexpr int64_t kPanelWidth = 2 * kWidth;
constexpr int64_t kPanelRow = kPanelWidth * kGroup;   // bytes of a panel's group of k
constexpr int64_t kStepSize = kTileRows * kPanelRow;  // bytes of a panel's tiles
constexpr int64_t kTileSums = kTileRows * kWidth;
constexpr int64_t kFewestRows = 4;  // of sums that become y between two steps

// Both with each lane rounded to the nearest integer, ties to even: as 16-bit numbers, half of each
// 128 bits from `a` and half from `b`.
CSRM_TARGET inline __m512i rounded(Vector::Register a, Vector::Register b) {
  return _mm512_packs_epi32(_mm512_maskz_cvtps_epi32(Vector::kAll, a),
                            _mm512_maskz_cvtps_epi32(Vector::kAll, b));
}
// The numbers of two such as bytes, in order.
CSRM_TARGET inline void store_bytes(int8_t* to, __m512i a, __m512i b) {
  alignas(64) static constexpr int32_t kOrder[] = {0, 4, 8,  12, 1, 5, 9,  13,
                                                   2, 6, 10, 14, 3, 7, 11, 15};
  const __m512i order = _mm512_loadu_si512(kOrder);
  const __m512i bytes = _mm512_packs_epi16(a, b);
  _mm512_storeu_si512(to, _mm512_maskz_permutexvar_epi32(Vector::kAll, order, bytes));
}

// A block of rows is two tiles of x, multiplied with the same weights.
// Those of 16 rows: each step of k has the high parts, then the low ones.
struct Words {
  using Value = int8_t;
  static constexpr Value kOffset = 0;
  static constexpr int kVectors = kDepth / kWidth;
  static constexpr bool kHasParts = true;
  static constexpr int64_t kValueSize = 2, kBlockRows = kTileRows;

  CSRM_TARGET static void store(Value* to, const Vector::Register (&v)[kVectors]) {
    const __m512i a = rounded(v[0], v[1]), b = rounded(v[2], v[3]), low = _mm512_set1_epi16(15);
    store_bytes(to, _mm512_srai_epi16(a, 4), _mm512_srai_epi16(b, 4));
    store_bytes(to + kDepth, _mm512_and_si512(a, low), _mm512_and_si512(b, low));
  }
  CSRM_TARGET static __m512i sum(const int32_t* sums, int64_t row) {
    const __m512i high = _mm512_loadu_si512(sums + row * kWidth);
    return _mm512_add_epi32(_mm512_maskz_slli_epi32(Vector::kAll, high, 4),
                            _mm512_loadu_si512(sums + kTileSums + row * kWidth));
  }
};

// Those of 32 rows.
struct Bytes {
  using Value = int8_t;
  static constexpr Value kOffset = 0;
  static constexpr int kVectors = kDepth / kWidth;
  static constexpr bool kHasParts = false;
  static constexpr int64_t kValueSize = 1, kBlockRows = 2 * kTileRows;

  CSRM_TARGET static void store(Value* to, const Vector::Register (&v)[kVectors]) {
    store_bytes(to, rounded(v[0], v[1]), rounded(v[2], v[3]));
  }
  CSRM_TARGET static __m512i sum(const int32_t* sums, int64_t row) {
    return _mm512_loadu_si512(sums + row * kWidth);
  }
};

// Sums of a block's rows and 16 columns on their way to y.
struct Outcome {
  const int32_t* sums;  // two tiles
  const float* x_scale;
  const float* scale;
  const float* bias;
  float* y;
  int64_t n_rows, n_done;
  __mmask16 columns;
};

// A block's rows by a panel: where both lie.
struct Place {
  int64_t row, n_rows;
  int64_t panel;
  const char* x[2];      // the tiles' first rows
  const int8_t* values;  // of the panel; the second 16 columns lie behind the first in each row
  const int8_t* next;    // the first line that this block fetches of a panel behind
  int64_t n_next;        // how many of each step
};

// Walks over rows by panels, the first 16 columns of each panel (left) half a depth ahead of the
// second (right): while one's sums leave the tiles and become y, the other's are multiplied.
template <typename Integers>
class Walk {
 public:
  CSRM_TARGET Walk(const LinearI8Block& block, int64_t first_row, int64_t end_row)
      : b_(block),
        first_row_(first_row),
        end_row_(end_row),
        n_panels_(block.end_panel - block.first_panel),
        n_row_blocks_((end_row - first_row + Integers::kBlockRows - 1) / Integers::kBlockRows),
        n_steps_(block.n_groups / kTileRows) {}

  CSRM_TARGET void run() {
    const int64_t n = n_row_blocks_ * n_panels_, half = n_steps_ / 2;
    Place before = place(0);
    for (int64_t i = 0; i < n; ++i) {
      const Place now = place(i);
      _tile_zero(0);
      _tile_zero(2);
      if (i == 0) {
        steps<true, false>(now, now, 0, half, left_);
      } else if (now.row == before.row) {
        steps<true, true, true>(now, before, 0, half, left_);
      } else {
        steps<true, true>(now, before, 0, half, left_);
      }
      if (i > 0) store_right(before);
      _tile_zero(1);
      _tile_zero(3);
      steps<true, true, true>(now, now, half, n_steps_, right_);
      store_left(now);
      before = now;
    }
    steps<false, true>(before, before, 0, half, left_);
    store_right(before);
    finish(right_, right_.n_rows);
  }

 private:
  CSRM_TARGET Place place(int64_t i) const {
    Place p{};
    const int64_t block = i / n_panels_;
    p.row = first_row_ + block * Integers::kBlockRows;
    p.n_rows = std::min(Integers::kBlockRows, end_row_ - p.row);
    p.panel = b_.first_panel + i % n_panels_;
    p.x[0] = b_.x + p.row * b_.row_size;
    // A block of one tile has it twice.
    p.x[1] = Integers::kHasParts     ? p.x[0] + kDepth
             : p.n_rows <= kTileRows ? p.x[0]
                                     : p.x[0] + kTileRows * b_.row_size;
    p.values = b_.values + p.panel * n_steps_ * kStepSize;
    // The next task is most often that of the panels behind, which come from far away; one block of
    // rows reads its own from there as fast as they come.
    if (n_row_blocks_ > 1 && p.panel + n_panels_ < b_.n_panels) {
      constexpr int64_t kLines = kStepSize / kRowBytes;
      const int64_t line = kLines * block / n_row_blocks_;
      p.n_next = kLines * (block + 1) / n_row_blocks_ - line;
      p.next = p.values + n_panels_ * n_steps_ * kStepSize + line * kRowBytes;
    }
    return p;
  }

  // Steps [from, end) of the left and the right columns, which may be of two places; `outcome`
  // becomes y meanwhile. kIsShared: of one place.
  template <bool kLeft, bool kRight, bool kIsShared = false>
  CSRM_TARGET inline void steps(const Place& left, const Place& right, int64_t from, int64_t end,
                                Outcome& outcome) {
    const int64_t rows_per_step = std::max<int64_t>(
        kFewestRows, (outcome.n_rows + end - from - 1) / std::max<int64_t>(1, end - from));
    for (int64_t k = from; k < end; ++k) {
      const int64_t at = k * kDepth * Integers::kValueSize;
      if (kLeft) {
        _tile_loadd(6, left.values + k * kStepSize, kPanelRow);
        _tile_loadd(4, left.x[0] + at, b_.row_size);
        _tile_dpbssd(0, 4, 6);
      }
      if (kRight) {
        _tile_loadd(7, right.values + k * kStepSize + kPanelRow / 2, kPanelRow);
        if (!kIsShared) _tile_loadd(4, right.x[0] + at, b_.row_size);
        _tile_dpbssd(1, 4, 7);
      }
      if (kLeft) {
        _tile_loadd(5, left.x[1] + at, b_.row_size);
        multiply_second_left();
        for (int64_t i = 0; i < left.n_next; ++i) {
          Vector::prefetch(reinterpret_cast<const char*>(left.next) + k * kStepSize +
                           i * kRowBytes);
        }
      }
      if (kRight) {
        if (!kIsShared) _tile_loadd(5, right.x[1] + at, b_.row_size);
        multiply_second_right();
      }
      finish(outcome, (k + 1 - from) * rows_per_step);
    }
    finish(outcome, outcome.n_rows);
  }

  // The second tile of x has no sign if it holds parts. Tiles are literals: gcc 12 spells them out.
  CSRM_TARGET static void multiply_second_left() {
    if constexpr (Integers::kHasParts) {
      _tile_dpbusd(2, 5, 6);
    } else {
      _tile_dpbssd(2, 5, 6);
    }
  }
  CSRM_TARGET static void multiply_second_right() {
    if constexpr (Integers::kHasParts) {
      _tile_dpbusd(3, 5, 7);
    } else {
      _tile_dpbssd(3, 5, 7);
    }
  }

  CSRM_TARGET void store_left(const Place& p) {
    _tile_stored(0, sums_[0], kRowBytes);
    _tile_stored(2, sums_[0] + kTileSums, kRowBytes);
    left_ = outcome(p, 0);
  }
  CSRM_TARGET void store_right(const Place& p) {
    _tile_stored(1, sums_[1], kRowBytes);
    _tile_stored(3, sums_[1] + kTileSums, kRowBytes);
    right_ = outcome(p, 1);
  }

  CSRM_TARGET Outcome outcome(const Place& p, int64_t half) const {
    const int64_t column = p.panel * kPanelWidth + half * kWidth;
    const int64_t n_columns = std::clamp<int64_t>(b_.n_out - column, 0, kWidth);
    const auto columns = static_cast<__mmask16>((1u << n_columns) - 1u);
    return {sums_[half],
            b_.x_scale + p.row,
            b_.scale + column,
            b_.bias + column,
            b_.y + p.row * b_.n_out + column,
            p.n_rows,
            0,
            columns};
  }

  // No rows.
  CSRM_TARGET static Outcome nothing() {
    return {nullptr, nullptr, kNone, kNone, nullptr, 0, 0, 0};
  }

  // The outcome's rows before `end`.
  CSRM_TARGET inline void finish(Outcome& o, int64_t end) const {
    end = std::min(end, o.n_rows);
    if (o.n_done >= end) return;
    const auto scale = Vector::load(o.scale), bias = Vector::load(o.bias);
    const int32_t* sums = o.sums;
    const float* x_scale = o.x_scale;
    const __mmask16 columns = o.columns;
    const bool has_gelu = b_.has_gelu;
    float* y = o.y + o.n_done * b_.n_out;
    const int64_t stride = b_.n_out;
    for (int64_t r = o.n_done; r < end; ++r, y += stride) {
      const auto sum = _mm512_maskz_cvtepi32_ps(Vector::kAll, Integers::sum(sums, r));
      auto v = dequantised(sum, Vector::set(x_scale[r]), scale, bias);
      if (has_gelu) v = gelu<Once>(v);
      _mm512_mask_storeu_ps(y, columns, v);
    }
    o.n_done = end;
  }

  const LinearI8Block& b_;
  const int64_t first_row_, end_row_, n_panels_, n_row_blocks_, n_steps_;
  static constexpr float kNone[kWidth] = {};
  Outcome left_ = nothing(), right_ = nothing();
  alignas(64) int32_t sums_[2][2 * kTileSums];
};

// What _tile_loadconfig reads.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t n_rows[16] = {};
};

// Tiles 0 to 3 are sums, 4 and 5 those of x, 6 and 7 of weights. `first` and `second`: rows of x.
CSRM_TARGET void shape_tiles(int64_t first, int64_t second) {
  TileShapes shapes;
  const int64_t n_rows[] = {first, first, second, second, first, second, kTileRows, kTileRows};
  for (int i = 0; i < 8; ++i) {
    shapes.row_bytes[i] = kRowBytes;
    shapes.n_rows[i] = static_cast<uint8_t>(n_rows[i]);
  }
  // gcc 12 believes that the intrinsic reads 8 bytes, and stores no more.
  __asm__ volatile("" : : "r"(&shapes) : "memory");
  _tile_loadconfig(&shapes);
}

template <typename Integers>
CSRM_TARGET void run_block(const LinearI8Block& b) {
  const int64_t n_rest = (b.end_row - b.first_row) % Integers::kBlockRows;
  const int64_t end_whole = b.end_row - n_rest;
  if (b.first_row < end_whole) {
    shape_tiles(kTileRows, kTileRows);
    Walk<Integers>(b, b.first_row, end_whole).run();
  }
  if (n_rest > 0) {
    const int64_t first = std::min(n_rest, kTileRows);
    shape_tiles(first, n_rest > kTileRows ? n_rest - kTileRows : first);
    Walk<Integers>(b, end_whole, b.end_row).run();
  }
  _tile_release();  // so that the system need not keep them when it switches threads
}

// A step reads a weight and multiplies it with 16 rows, however few there are.
constexpr LinearPace kPace{12 << 20, 64, kTileRows};

template <typename Integers>
constexpr LinearI8Version version() {
  return {kPanelWidth,
          kGroup,
          kDepth,
          Integers::kValueSize,
          Integers::kOffset,
          kPace,
          round_rows<Integers>,
          run_block<Integers>};
}

}  // namespace

const LinearI8Version kLinearI8AmxWords = version<Words>();
const LinearI8Version kLinearI8AmxBytes = version<Bytes>();

}  // namespace csrm::kernels

#endif  // CSRM_HAS_AMX
