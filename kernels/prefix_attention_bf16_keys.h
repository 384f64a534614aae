// The keys and values of a block as AMX tiles of bfloat16, which the rows of a task share. Included
// by prefix_attention_amx.cc alone, after vector_avx512.h. Not: what is computed with them.
//
// Every number is rounded to the nearest bfloat16, ties to even; beside a prefix of half precision
// a row's own are rounded to that before. So a key has the same bits whether it is the prefix's or
// the row's.
#include <algorithm>
#include <cstdint>
#include <limits>

#include "prefix_attention_block.h"
#include "unroll.h"

namespace csrm::kernels {
namespace {

using Register = Vector::Register;
constexpr int64_t kWidth = Vector::kWidth;
constexpr int64_t kKeyBlock = 384;
constexpr int64_t kChunk = PackedPrefix::kChunk;  // keys of a product with the values
constexpr int64_t kChunks = kKeyBlock / kChunk;   // of a block
constexpr int64_t kDepth = 32;                    // columns of a head of a product with the keys
constexpr int64_t kTileWords = 16 * 2 * kWidth;   // of a tile, which has 16 rows of 64 bytes
constexpr int64_t kRowBytes = 64;
constexpr int64_t kNone = std::numeric_limits<int64_t>::max();

// Keys of one batch entry, from a multiple of kKeyBlock on. In scratch, but for the prefix.
struct PackedKeys {
  uint16_t* keys[kChunks];      // [2, D / 32] tiles [16 pairs of columns, 16 keys, 2] of a chunk
  uint16_t* values[kChunks];    // [D / 32, 2] tiles [16 pairs of keys, 16 columns, 2]
  int64_t not_finite[kChunks];  // the first key of each chunk that or whose value is not, or kNone
  uint16_t* words;              // [kChunks, 2, kChunk, D] room for both
  uint16_t* rows;               // [2, kChunk, D] keys, then values of the chunk that is packed
  PackedPrefix::Head prefix;    // whose whole chunks are there instead,
  PackedPrefix::Use use;        // unless nothing may be done with it
};

CSRM_TARGET inline __m512i load_words(const uint16_t* p) { return _mm512_loadu_si512(p); }
CSRM_TARGET inline void store_words(uint16_t* p, __m512i v) { _mm512_storeu_si512(p, v); }

// 32 numbers: those of `low`, then those of `high`.
CSRM_TARGET inline __m512i to_bf16(Register low, Register high) {
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

// How keys and values lie: a prefix in fp32 and a row beside it, a prefix in half precision, a row
// beside that.
enum class Source { kFloats, kHalves, kFloatsByHalves };

template <Source kSource>
CSRM_TARGET inline Register read(const void* from, int64_t i) {
  if constexpr (kSource == Source::kHalves) {
    return Vector::load_half(static_cast<const uint16_t*>(from) + i);
  } else {
    const Register v = Vector::load(static_cast<const float*>(from) + i);
    return kSource == Source::kFloats ? v : Vector::through_half(v);
  }
}

// n rows of `size` numbers that begin at number `first` and `stride` apart -> bfloat16. False if
// one of these is not finite.
template <Source kSource>
CSRM_TARGET bool convert(const void* from, int64_t first, int64_t stride, int64_t n, int64_t size,
                         uint16_t* to) {
  const __m512i exponent = _mm512_set1_epi16(0x7f80);
  __mmask32 found = 0;
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t i = 0; i < size; i += 2 * kWidth) {
      const int64_t at = first + r * stride + i;
      const __m512i words = to_bf16(read<kSource>(from, at), read<kSource>(from, at + kWidth));
      found |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(words, exponent), exponent);
      store_words(to + r * size + i, words);
    }
  }
  return found == 0;
}

// Keys [start, end) of a batch entry, at most a chunk -> `rows`, zeros behind. False if a key or a
// value is not finite.
CSRM_TARGET bool read_chunk(const PrefixAttentionParams& p, const AttentionTask& task,
                            int64_t batch, int64_t start, int64_t end, uint16_t* rows) {
  const int64_t size = p.head_dim,
                n_prefix = std::clamp<int64_t>(p.n_prefix - start, 0, end - start);
  const int64_t n_own = end - start - n_prefix;
  const int64_t at = ((p.layer * p.n_kv_heads + task.kv_head) * p.n_prefix + start) * size;
  const int64_t token = batch * p.n_tokens + start + n_prefix - p.n_prefix;
  const int64_t own_at = token * p.key_value_width + task.kv_head * size;
  const auto convert_prefix = p.is_half ? convert<Source::kHalves> : convert<Source::kFloats>;
  const auto convert_own = p.is_half ? convert<Source::kFloatsByHalves> : convert<Source::kFloats>;
  const void* const prefix[2] = {p.prefix_key, p.prefix_value};
  const int64_t offset[2] = {p.key_offset, p.value_offset};
  bool is_finite = true;
  for (int i = 0; i < 2; ++i, rows += kChunk * size) {
    is_finite &= convert_prefix(prefix[i], at, size, n_prefix, size, rows);
    is_finite &= convert_own(p.key_value, own_at + offset[i], p.key_value_width, n_own, size,
                             rows + n_prefix * size);
    std::fill(rows + (end - start) * size, rows + kChunk * size, uint16_t{0});
  }
  return is_finite;
}

// The first key of a chunk's rows that is not finite or whose value is not. All these values become
// zeros, so that they reach no row through a weight of 0.
int64_t remove_not_finite(int64_t size, uint16_t* rows) {
  const auto is_finite = [size](const uint16_t* row) {
    return std::all_of(row, row + size, [](uint16_t word) { return (word & 0x7f80) != 0x7f80; });
  };
  int64_t first = kNone;
  for (int64_t k = kChunk - 1; k >= 0; --k) {
    uint16_t* value = rows + (kChunk + k) * size;
    if (is_finite(rows + k * size) && is_finite(value)) continue;
    first = k;
    std::fill_n(value, size, uint16_t{0});
  }
  return first;
}

// The 8 words at `from` and those 4, 8 and 12 rows behind.
CSRM_TARGET inline __m512i load_every_fourth(const uint16_t* from, int64_t stride) {
  const auto* p = reinterpret_cast<const char*>(from);
  const int64_t step = 4 * stride * static_cast<int64_t>(sizeof(uint16_t));
  __m512i v = _mm512_castsi128_si512(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  v = _mm512_maskz_inserti32x4(Vector::kAll, v,
                               _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + step)), 1);
  v = _mm512_maskz_inserti32x4(Vector::kAll, v,
                               _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 2 * step)), 2);
  return _mm512_maskz_inserti32x4(
      Vector::kAll, v, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 3 * step)), 3);
}

// 16 rows of 16 pairs of words, `stride` words apart -> the tile that is their transpose.
CSRM_TARGET inline void transpose_pairs(const uint16_t* from, int64_t stride, uint16_t* to) {
  constexpr __mmask8 kAll = 0xFF;
  constexpr int64_t kTileRow = 2 * kWidth;
  for (int64_t quarter = 0; quarter < 4; ++quarter, from += 8, to += 4 * kTileRow) {
    __m512i rows[4];
    CSRM_UNROLL
    for (int64_t i = 0; i < 4; ++i) rows[i] = load_every_fourth(from + i * stride, stride);
    const __m512i a = _mm512_maskz_unpacklo_epi32(Vector::kAll, rows[0], rows[1]);
    const __m512i b = _mm512_maskz_unpacklo_epi32(Vector::kAll, rows[2], rows[3]);
    const __m512i c = _mm512_maskz_unpackhi_epi32(Vector::kAll, rows[0], rows[1]);
    const __m512i d = _mm512_maskz_unpackhi_epi32(Vector::kAll, rows[2], rows[3]);
    store_words(to, _mm512_maskz_unpacklo_epi64(kAll, a, b));
    store_words(to + kTileRow, _mm512_maskz_unpackhi_epi64(kAll, a, b));
    store_words(to + 2 * kTileRow, _mm512_maskz_unpacklo_epi64(kAll, c, d));
    store_words(to + 3 * kTileRow, _mm512_maskz_unpackhi_epi64(kAll, c, d));
  }
}

// 32 rows of 32 values, `stride` words apart -> two tiles of pairs of rows. Columns 0-3, 8-11,
// 16-19 and 24-27 come into the first, the others into the second: in_order() undoes it in a
// context.
CSRM_TARGET inline void interleave_rows(const uint16_t* from, int64_t stride, uint16_t* to) {
  constexpr __mmask32 kAll = 0xFFFFFFFF;
  for (int64_t i = 0; i < 16; ++i, from += 2 * stride, to += 2 * kWidth) {
    const __m512i even = load_words(from), odd = load_words(from + stride);
    store_words(to, _mm512_maskz_unpacklo_epi16(kAll, even, odd));
    store_words(to + kTileWords, _mm512_maskz_unpackhi_epi16(kAll, even, odd));
  }
}

struct Columns {
  Register low, high;  // 32 columns of a row
};

// What a product with interleaved values gives, in the order of the values' columns.
CSRM_TARGET inline Columns in_order(Register first, Register second) {
  alignas(64) static constexpr int32_t kLow[] = {0, 1, 2, 3, 16, 17, 18, 19,
                                                 4, 5, 6, 7, 20, 21, 22, 23};
  const __m512i low = _mm512_loadu_si512(kLow);
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
  return {_mm512_permutex2var_ps(first, low, second), _mm512_permutex2var_ps(first, high, second)};
}

// Says where chunk c of the block that begins at key `start` lies: in scratch, or where all chunks
// of the prefix are kept. True if it is there already.
inline bool place_chunk(const PrefixAttentionParams& p, int64_t start, int64_t c, PackedKeys& b) {
  const int64_t chunk_words = kChunk * p.head_dim, i = start / kChunk + c;
  const bool is_kept = b.use != PackedPrefix::Use::kNone && (i + 1) * kChunk <= p.n_prefix;
  b.keys[c] = is_kept ? b.prefix.words + i * 2 * chunk_words : b.words + c * 2 * chunk_words;
  b.values[c] = b.keys[c] + chunk_words;
  if (!is_kept || b.use != PackedPrefix::Use::kRead) return false;
  const int64_t first = b.prefix.not_finite[i];
  b.not_finite[c] = first == kChunk ? kNone : c * kChunk + first;
  return true;
}

// Chunk c of the block that begins at key `start`, up to key `end` of a batch entry's.
CSRM_TARGET void pack_chunk(const PrefixAttentionParams& p, const AttentionTask& task,
                            int64_t batch, int64_t start, int64_t end, int64_t c, PackedKeys& b) {
  const int64_t size = p.head_dim, n_parts = size / kDepth, first = start + c * kChunk;
  b.not_finite[c] = kNone;
  if (first >= end || place_chunk(p, start, c, b)) return;
  int64_t not_finite = kChunk;
  if (!read_chunk(p, task, batch, first, std::min(first + kChunk, end), b.rows)) {
    not_finite = remove_not_finite(size, b.rows);
    b.not_finite[c] = c * kChunk + not_finite;
  }
  if (b.use == PackedPrefix::Use::kFill && first + kChunk <= p.n_prefix) {
    b.prefix.not_finite[first / kChunk] = static_cast<uint8_t>(not_finite);
  }
  const uint16_t* keys = b.rows;
  const uint16_t* values = keys + kChunk * size;
  uint16_t* key_tile = b.keys[c];
  uint16_t* value_tile = b.values[c];
  for (int64_t i = 0; i < 2 * n_parts; ++i, key_tile += kTileWords) {
    const int64_t half = i / n_parts, part = i % n_parts;
    transpose_pairs(keys + half * kWidth * size + part * kDepth, size, key_tile);
  }
  for (int64_t part = 0; part < n_parts; ++part, value_tile += 2 * kTileWords) {
    interleave_rows(values + part * kDepth, size, value_tile);
  }
}

}  // namespace
}  // namespace csrm::kernels
