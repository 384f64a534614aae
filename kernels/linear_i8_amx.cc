// LinearI8 with AMX: products of tiles of 16 rows and 16 columns over 64 values of k, everything
// else as in linear_i8_avx512.cc. Not: whether this CPU has tiles (amx.h).
//
// 12 bits are multiplied as two bytes: q = 16 * high + low with high in [-128, 127] and low in
// [0, 15], so sum = 16 * (high . values) + (low . values), of which only the whole must fit 32 bits.
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

constexpr int64_t kTileRows = 16;  // of x, and of groups of k in a tile of weights
constexpr int64_t kDepth = 64;     // values of k in a row of a tile of x
constexpr int64_t kGroup = 4;      // values of k next to each other in a tile of weights
constexpr int64_t kPanelWidth = 2 * kWidth;
constexpr int64_t kPanelRow = kPanelWidth * kGroup;   // bytes of a panel's group of k
constexpr int64_t kStepSize = kTileRows * kPanelRow;  // bytes of a panel's tiles
constexpr int64_t kTileSums = kTileRows * kWidth;
constexpr int64_t kLineBytes = 64;

CSRM_TARGET inline void store_bytes(int8_t* to, __m512i v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_maskz_cvtepi32_epi8(Vector::kAll, v));
}
// Each lane rounded to the nearest integer, ties to even.
CSRM_TARGET inline __m512i rounded(Vector::Register v) {
  return _mm512_maskz_cvtps_epi32(Vector::kAll, v);
}

// A block of rows is two tiles of x, multiplied with the same weights.
// Those of 16 rows: each step of k has the high parts, then the low ones.
struct Words {
  using Value = int8_t;
  static constexpr Value kOffset = 0;
  static constexpr bool kHasParts = true;
  static constexpr int64_t kValueSize = 2, kBlockRows = kTileRows;

  CSRM_TARGET static void store(Value* row, int64_t k, Vector::Register v) {
    Value* to = row + k / kDepth * kDepth * kValueSize + k % kDepth;
    const __m512i whole = rounded(v);
    store_bytes(to, _mm512_maskz_srai_epi32(Vector::kAll, whole, 4));
    store_bytes(to + kDepth, _mm512_and_si512(whole, _mm512_set1_epi32(15)));
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
  static constexpr bool kHasParts = false;
  static constexpr int64_t kValueSize = 1, kBlockRows = 2 * kTileRows;

  CSRM_TARGET static void store(Value* row, int64_t k, Vector::Register v) {
    store_bytes(row + k, rounded(v));
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
  const int8_t* next;    // what this block fetches of the panel behind, or null
  int64_t n_next;        // lines of each step
};

// Walks over the blocks of some panels, the first 16 columns of each (left) half a depth ahead of
// the second (right): while one's sums leave the tiles and become y, the other's are multiplied.
template <typename Integers>
class Walk {
 public:
  CSRM_TARGET Walk(const LinearI8Block& block, int64_t first_row, int64_t end_row)
      : b_(block),
        first_row_(first_row),
        end_row_(end_row),
        n_row_blocks_((end_row - first_row + Integers::kBlockRows - 1) / Integers::kBlockRows),
        n_steps_(block.n_groups / kTileRows) {}

  CSRM_TARGET void run() {
    const int64_t n = n_row_blocks_ * (b_.end_panel - b_.first_panel), half = n_steps_ / 2;
    Place before = place(0);
    for (int64_t i = 0; i < n; ++i) {
      const Place now = place(i);
      _tile_zero(0);
      _tile_zero(2);
      if (i == 0) {
        steps<true, false>(now, now, 0, half, left_);
      } else {
        steps<true, true>(now, before, 0, half, left_);
        store_right(before);
      }
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
    const int64_t block = i % n_row_blocks_;
    p.row = first_row_ + block * Integers::kBlockRows;
    p.n_rows = std::min(Integers::kBlockRows, end_row_ - p.row);
    p.panel = b_.first_panel + i / n_row_blocks_;
    p.x[0] = b_.x + p.row * b_.row_size;
    // A block of one tile has it twice.
    p.x[1] = Integers::kHasParts       ? p.x[0] + kDepth
             : p.n_rows <= kTileRows ? p.x[0]
                                     : p.x[0] + kTileRows * b_.row_size;
    p.values = b_.values + p.panel * n_steps_ * kStepSize;
    if (p.panel + 1 < b_.end_panel) {
      constexpr int64_t kLines = kStepSize / kLineBytes;
      const int64_t line = kLines * block / n_row_blocks_;
      p.n_next = kLines * (block + 1) / n_row_blocks_ - line;
      p.next = p.values + n_steps_ * kStepSize + line * kLineBytes;
    }
    return p;
  }

  // Steps [from, end) of the left and the right columns, which may be of two places; `outcome`
  // becomes y meanwhile. kIsShared: of one place.
  template <bool kLeft, bool kRight, bool kIsShared = false>
  CSRM_TARGET inline void steps(const Place& left, const Place& right, int64_t from, int64_t end,
                                Outcome& outcome) {
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
                           i * kLineBytes);
        }
      }
      if (kRight) {
        if (!kIsShared) _tile_loadd(5, right.x[1] + at, b_.row_size);
        multiply_second_right();
      }
      finish(outcome, outcome.n_rows * (k + 1 - from) / (end - from));
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
    _tile_stored(0, sums_[0], kLineBytes);
    _tile_stored(2, sums_[0] + kTileSums, kLineBytes);
    left_ = outcome(p, 0);
  }
  CSRM_TARGET void store_right(const Place& p) {
    _tile_stored(1, sums_[1], kLineBytes);
    _tile_stored(3, sums_[1] + kTileSums, kLineBytes);
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

  // The outcome's rows before `end`.
  CSRM_TARGET inline void finish(Outcome& o, int64_t end) const {
    for (; o.n_done < end; ++o.n_done) {
      const int64_t r = o.n_done;
      const auto sum = _mm512_maskz_cvtepi32_ps(Vector::kAll, Integers::sum(o.sums, r));
      const auto scale = Vector::mul(Vector::set(o.x_scale[r]), Vector::load(o.scale));
      auto y = Alike::fma(sum, scale, Vector::load(o.bias));
      if (b_.has_gelu) y = gelu<Alike>(y);
      _mm512_mask_storeu_ps(o.y + r * b_.n_out, o.columns, y);
    }
  }

  const LinearI8Block& b_;
  const int64_t first_row_, end_row_, n_row_blocks_, n_steps_;
  Outcome left_{}, right_{};
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
    shapes.row_bytes[i] = kLineBytes;
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
constexpr LinearPace kPace{6 << 20, 64, kTileRows};

template <typename Integers>
constexpr LinearI8Version version() {
  return {kPanelWidth,       kGroup, kDepth, Integers::kValueSize,
          Integers::kOffset, kPace,  round_rows<Integers>, run_block<Integers>};
}

}  // namespace

const LinearI8Version kLinearI8AmxWords = version<Words>();
const LinearI8Version kLinearI8AmxBytes = version<Bytes>();

}  // namespace csrm::kernels

#endif  // CSRM_HAS_AMX
