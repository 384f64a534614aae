// PrefixAttention with products of bfloat16 on AMX tiles and all else in fp32 with AVX-512, for
// graphs that ask for such products. Not: whether this CPU has them (amx.h), or other CPUs, which
// compute in fp32 (prefix_attention_tile.h).
//
// A tile is 16 rows, a row one query of one head. Queries times scale, keys, values and weights are
// rounded to bfloat16; every sum of products is fp32. Per row, in blocks of 384 keys counted from
// the first key it sees: scores, weights 2^score, the sums of the rounded weights and of these
// times values. A tile's products treat each row alone and in one order, and a key that a row does
// not see adds a zero, so that a row meets no other one here. Where a key or value is not finite,
// the rows that see it give NaN and the others do not meet it.
// No score is lowered by the row's highest, which takes a pass of its own: a weight of bfloat16 has
// the range of fp32. A row whose weights leave the middle of it is computed again with scores that
// are lowered by an integer, which changes no digit of a weight.
//
// The ladder; us for 12 heads of 32, 128 tokens over a prefix of 256, one thread of an Emerald
// Rapids that other work shared (gcc 12 -O2, least of 200 to 300 turns, each beside one of AVX-512
// in fp32, whose least was 640 to 710):
//   1. scores of 256 keys, then their weights, then products with values, tile after tile: 349.
//   2. the scores of the next tile and the values of the one before in the midst of a tile's
//      weights: 275 to 297. Worse with blocks of 128 keys or weights written over scores (314 to
//      342): each row of a block costs, and 3 tiles' scores leave the cache of 48 KB.
//   3. no interleaving of tiles, chunk after chunk of 32 keys: products with the keys twice, first
//      for the highest score, so that nothing is kept: 276 to 304. The tiles' instructions do not
//      overlap with the vectors' (45 + 16 cycles of the clock apart, 61 together).
//   4. the scores kept, a polynomial of degree 3 and not 4 (9e-5; a weight's rounding is 4e-3), the
//      sum of the weights as one product more: 233. Blocks of 512 keys: 233, 256: 236.
//   5. no highest score: 226. This one. Without one part at a time: packing keys and values 70,
//      weights 70 (their powers 25), products with keys 37, with values 23.
//   6. the prefix packed before, in a PackedPrefix: 156 without packing anything.
// Dropped: products with the values two chunks behind, 231. Dropped before it was written: dot
// products of bfloat16 in vectors (vdpbf16ps), which this CPU begins every second cycle, so that
// they are half as fast as multiply-adds in fp32, of which it begins two in each.
#include "amx.h"

#if CSRM_HAS_AMX

#define CSRM_TARGET_AVX512 "avx512f,avx512bw,avx512dq,avx512bf16,avx2,fma,amx-tile,amx-bf16"
// clang-format off: the vectors come first
#include "vector_avx512.h"
#include "prefix_attention_bf16_keys.h"
// clang-format on

#include <atomic>
#include <cmath>

#include "aligned.h"

namespace csrm::kernels {
namespace {

constexpr int64_t kTileRows = 16;
constexpr int64_t kTaskTiles = 16;
constexpr int64_t kScores = kTileRows * kChunk;  // of a chunk
constexpr float kLog2E = 1.44269504f;
// A row's total of weights 2^score, or its inverse, which none has in a usual model.
constexpr float kLeastTotal = 0x1p-40f;

// 2^f for f in [0, 1], exact at 0, with a relative error of 9e-5.
constexpr float kPower[] = {1.0f, 0.6951168f, 0.22764489f, 0.07706714f};

// Some queries of one batch entry and one head of keys. In scratch.
struct RowTile {
  uint16_t* query;  // [16, D] times scale and log2(e)
  float* sums;      // [16, D] of weight * value, columns as interleave_rows() leaves them
  float* total;     // [16] of the weights
  float* shift;     // [16] an integer that each score is lowered by
  float* highest;   // [16] of the scores, where that is asked for
  int64_t* seen;    // [16] keys
  int64_t batch, first_row, n_rows;
  int64_t most_seen;
};

// What a tile needs while it meets a block of keys. In scratch.
struct Workspace {
  float* scores;      // [2, 16, 32] of a chunk and the next one
  uint16_t* weights;  // [kChunks, 16, 32]
  float* products;    // [16, 32] weights * values, or their sums in each column
  uint16_t* ones;     // a tile
};

// How many of a block's keys each row sees.
struct Sight {
  int64_t of[kTileRows];
  int64_t n_chunks;  // that some row sees
  int64_t n_whole;   // the first ones, which every row sees
};

// 2^t; 0 and infinity for a t far from it.
CSRM_TARGET inline Register power_of_two(Register t) {
  constexpr int kAboveFloor = 9;  // t - floor(t), and no exceptions
  const Register f = _mm512_maskz_reduce_ps(Vector::kAll, t, kAboveFloor);
  Register p = Vector::fma(f, Vector::set(kPower[3]), Vector::set(kPower[2]));
  p = Vector::fma(p, f, Vector::set(kPower[1]));
  p = Vector::fma(p, f, Vector::set(kPower[0]));
  return _mm512_maskz_scalef_ps(Vector::kAll, p, t);
}

// The first n lanes; none and all for an n beyond.
CSRM_TARGET inline __mmask16 first_lanes(int64_t n) {
  return static_cast<__mmask16>((1u << std::clamp<int64_t>(n, 0, kWidth)) - 1u);
}

// The compiler does not know that a tile's instruction reads memory.
inline void finish_stores() { std::atomic_signal_fence(std::memory_order_seq_cst); }

CSRM_TARGET inline void multiply_keys(const RowTile& t, int64_t size, const uint16_t* keys,
                                      float* scores) {
  const int64_t n_parts = size / kDepth;
  finish_stores();
  _tile_zero(0);
  _tile_zero(1);
  for (int64_t part = 0; part < n_parts; ++part, keys += kTileWords) {
    _tile_loadd(5, t.query + part * kDepth, size * 2);
    _tile_loadd(6, keys, kRowBytes);
    _tile_dpbf16ps(0, 5, 6);
    _tile_loadd(6, keys + n_parts * kTileWords, kRowBytes);
    _tile_dpbf16ps(1, 5, 6);
  }
  _tile_stored(0, scores, 2 * kRowBytes);
  _tile_stored(1, scores + kWidth, 2 * kRowBytes);
}

// Tiles 2 and 3 += a chunk's weights * values of 32 columns; tile 5 keeps the weights.
CSRM_TARGET inline void multiply_values(const uint16_t* weights, const uint16_t* values) {
  finish_stores();
  _tile_loadd(5, weights, kRowBytes);
  _tile_loadd(6, values, kRowBytes);
  _tile_dpbf16ps(2, 5, 6);
  _tile_loadd(6, values + kTileWords, kRowBytes);
  _tile_dpbf16ps(3, 5, 6);
}

// kIsWhole: every row sees all keys of the chunk, which begins at key k of the block.
template <bool kIsWhole>
CSRM_TARGET void weigh(const float* scores, int64_t k, const RowTile& t, const Sight& sight,
                       uint16_t* weights) {
  for (int64_t r = 0; r < t.n_rows; ++r, scores += kChunk, weights += kChunk) {
    const Register shift = Vector::set(t.shift[r]);
    Register w[2];
    CSRM_UNROLL
    for (int64_t i = 0; i < 2; ++i) {
      w[i] = power_of_two(Vector::sub(Vector::load(scores + i * kWidth), shift));
      if (kIsWhole) continue;
      w[i] = _mm512_maskz_mov_ps(first_lanes(sight.of[r] - k - i * kWidth), w[i]);
    }
    store_words(weights, to_bf16(w[0], w[1]));
  }
}

Sight sight_of(const RowTile& t, int64_t start) {
  Sight sight{};
  int64_t most = 0, least = kKeyBlock;
  for (int64_t r = 0; r < t.n_rows; ++r) {
    sight.of[r] = std::clamp<int64_t>(t.seen[r] - start, 0, kKeyBlock);
    most = std::max(most, sight.of[r]);
    least = std::min(least, sight.of[r]);
  }
  sight.n_chunks = (most + kChunk - 1) / kChunk;
  sight.n_whole = least / kChunk;
  return sight;
}

// The rows' sums of 32 columns, of those that see a key of the block, with tiles 2 and 3.
CSRM_TARGET void add_products(const RowTile& t, const Sight& sight, const Workspace& w, float* sums,
                              int64_t size) {
  _tile_stored(2, w.products, 2 * kRowBytes);
  _tile_stored(3, w.products + kWidth, 2 * kRowBytes);
  for (int64_t r = 0; r < t.n_rows; ++r) {
    if (sight.of[r] == 0) continue;
    for (int64_t i = 0; i < 2 * kWidth; i += kWidth) {
      float* at = sums + r * size + i;
      const Register more = Vector::load(w.products + r * 2 * kWidth + i);
      Vector::store(at, Vector::add(Vector::load(at), more));
    }
  }
}

// As add_products, of the weights, with tile 4.
CSRM_TARGET void add_weights(const RowTile& t, const PackedKeys& b, const Sight& sight,
                             const Workspace& w) {
  const int64_t not_finite = *std::min_element(b.not_finite, b.not_finite + kChunks);
  _tile_stored(4, w.products, kRowBytes);
  for (int64_t r = 0; r < t.n_rows; ++r) {
    if (sight.of[r] == 0) continue;
    t.total[r] += w.products[r * kWidth];
    if (not_finite < sight.of[r]) t.total[r] = std::numeric_limits<float>::quiet_NaN();
  }
}

// The block's keys [start, start + 384) as far as the tile sees them.
CSRM_TARGET void attend(const RowTile& t, int64_t size, const PackedKeys& b, int64_t start,
                        const Workspace& w) {
  const Sight sight = sight_of(t, start);
  if (sight.n_chunks == 0) return;
  const int64_t n_parts = size / kDepth;
  // Further columns need all weights once more; without them few stay in the cache.
  const int64_t n_kept = n_parts == 1 ? 2 : kChunks;
  multiply_keys(t, size, b.keys[0], w.scores);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  for (int64_t c = 0; c <= sight.n_chunks; ++c) {
    if (c > 0) {
      multiply_values(w.weights + (c - 1) % n_kept * kTileWords, b.values[c - 1]);
      _tile_dpbf16ps(4, 5, 7);
    }
    if (c == sight.n_chunks) break;
    if (c + 1 < sight.n_chunks) {  // while this chunk's scores become weights
      multiply_keys(t, size, b.keys[c + 1], w.scores + (c + 1) % 2 * kScores);
    }
    const auto weigh_chunk = c < sight.n_whole ? weigh<true> : weigh<false>;
    weigh_chunk(w.scores + c % 2 * kScores, c * kChunk, t, sight,
                w.weights + c % n_kept * kTileWords);
  }
  add_weights(t, b, sight, w);
  add_products(t, sight, w, t.sums, size);
  for (int64_t part = 1; part < n_parts; ++part) {
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t c = 0; c < sight.n_chunks; ++c) {
      multiply_values(w.weights + c * kTileWords, b.values[c] + part * 2 * kTileWords);
    }
    add_products(t, sight, w, t.sums + part * kDepth, size);
  }
}

// The highest score of each row so far, with the block's keys.
CSRM_TARGET void find_highest(const RowTile& t, int64_t size, const PackedKeys& b, int64_t start,
                              const Workspace& w) {
  const Sight sight = sight_of(t, start);
  for (int64_t c = 0; c < sight.n_chunks; ++c) {
    multiply_keys(t, size, b.keys[c], w.scores);
    for (int64_t r = 0; r < t.n_rows; ++r) {
      const int64_t n_seen = std::clamp<int64_t>(sight.of[r] - c * kChunk, 0, kChunk);
      const float* scores = w.scores + r * kChunk;
      for (int64_t k = 0; k < n_seen; ++k) t.highest[r] = std::max(t.highest[r], scores[k]);
    }
  }
}

void lay_out(int64_t size, Parts& scratch, RowTile* t) {
  t->query = scratch.take<uint16_t>(kTileRows * size);
  t->sums = scratch.take<float>(kTileRows * size);
  t->total = scratch.take<float>(kTileRows);
  t->shift = scratch.take<float>(kTileRows);
  t->highest = scratch.take<float>(kTileRows);
  t->seen = scratch.take<int64_t>(kTileRows);
}

void lay_out(int64_t size, Parts& scratch, PackedKeys* b) {
  b->words = scratch.take<uint16_t>(2 * kKeyBlock * size);
  b->rows = scratch.take<uint16_t>(2 * kChunk * size);
}

void lay_out(Parts& scratch, Workspace* w) {
  w->scores = scratch.take<float>(2 * kScores);
  w->weights = scratch.take<uint16_t>(kTileRows * kKeyBlock);
  w->products = scratch.take<float>(kTileRows * 2 * kWidth);
  w->ones = scratch.take<uint16_t>(kTileWords);
}

struct Memory {
  RowTile tiles[kTaskTiles];
  PackedKeys keys;
  Workspace workspace;
};

// Bytes of it.
size_t lay_out(const PrefixAttentionParams& p, float* scratch, Memory* m) {
  Parts parts(scratch);
  for (RowTile& t : m->tiles) lay_out(p.head_dim, parts, &t);
  lay_out(p.head_dim, parts, &m->keys);
  lay_out(parts, &m->workspace);
  return parts.size();
}

size_t scratch_size(const PrefixAttentionParams& p) {
  Memory m;
  return lay_out(p, nullptr, &m) / sizeof(float);
}

// Fills the tile for the first block.
CSRM_TARGET void start_tile(const PrefixAttentionParams& p, const AttentionTask& task, int64_t i,
                            RowTile& t) {
  const int64_t size = p.head_dim;
  t.batch = i / task.n_tiles;
  t.first_row = i % task.n_tiles * kTileRows;
  t.n_rows = std::min(kTileRows, p.n_queries * task.n_sharing - t.first_row);
  t.most_seen = 0;
  std::fill_n(t.query + t.n_rows * size, (kTileRows - t.n_rows) * size, uint16_t{0});
  std::fill_n(t.sums, kTileRows * size, 0.0f);
  std::fill_n(t.total, kTileRows, 0.0f);
  std::fill_n(t.shift, kTileRows, 0.0f);
  const Register scale = Vector::set(p.scale * kLog2E);
  for (int64_t r = 0; r < t.n_rows; ++r) {
    const AttentionRow row = row_of(p, task, t.batch, t.first_row + r);
    t.seen[r] = seen_by(p, row);
    t.most_seen = std::max(t.most_seen, t.seen[r]);
    const float* from = p.query + row.query * p.query_width + p.query_offset + row.head * size;
    for (int64_t d = 0; d < size; d += 2 * kWidth) {
      const Register low = Vector::mul(Vector::load(from + d), scale);
      const Register high = Vector::mul(Vector::load(from + d + kWidth), scale);
      store_words(t.query + r * size + d, to_bf16(low, high));
    }
  }
}

CSRM_TARGET void write_context(const PrefixAttentionParams& p, const AttentionTask& task,
                               const RowTile& t) {
  const Register zero = Vector::set(0.0f);  // makes 0 of a -0, which a tile's other rows decide on
  for (int64_t r = 0; r < t.n_rows; ++r) {
    const AttentionRow row = row_of(p, task, t.batch, t.first_row + r);
    const Register scale = Vector::set(t.seen[r] > 0 ? 1.0f / t.total[r] : 0.0f);
    const float* sums = t.sums + r * p.head_dim;
    float* to = p.context + (row.query * p.n_heads + row.head) * p.head_dim;
    for (int64_t d = 0; d < p.head_dim; d += 2 * kWidth) {
      const Columns columns = in_order(Vector::fma(Vector::load(sums + d), scale, zero),
                                       Vector::fma(Vector::load(sums + d + kWidth), scale, zero));
      Vector::store(to + d, columns.low);
      Vector::store(to + d + kWidth, columns.high);
    }
  }
}

// What _tile_loadconfig reads.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t n_rows[16] = {};
};

// Tiles 0 and 1 are scores, 2 and 3 weights * values, 4 sums of weights, 5 queries or weights, 6
// keys or values, 7 ones.
CSRM_TARGET void shape_tiles(int64_t n_rows) {
  TileShapes shapes;
  for (int i = 0; i < 8; ++i) {
    shapes.row_bytes[i] = kRowBytes;
    shapes.n_rows[i] = static_cast<uint8_t>(i < 6 ? n_rows : kTileRows);
  }
  // gcc 12 believes that the intrinsic reads 8 bytes, and stores no more.
  __asm__ volatile("" : : "r"(&shapes) : "memory");
  _tile_loadconfig(&shapes);
}

using Meet = void (*)(const RowTile&, int64_t, const PackedKeys&, int64_t, const Workspace&);

// The tiles [first, end) of one batch entry meet the block of keys from `start` on.
CSRM_TARGET void meet_block(const PrefixAttentionParams& p, const AttentionTask& task,
                            int64_t first, int64_t end, int64_t start, Meet meet, Memory& m) {
  int64_t most_seen = 0;
  for (int64_t i = first; i < end; ++i) most_seen = std::max(most_seen, m.tiles[i].most_seen);
  // What the prefix fills alone is the same for every batch entry.
  const int64_t own = std::clamp<int64_t>((p.n_prefix - start) / kChunk, 0, kChunks);
  for (int64_t c = first == 0 ? 0 : own; c < kChunks; ++c) {
    pack_chunk(p, task, m.tiles[first].batch, start, most_seen, c, m.keys);
  }
  for (int64_t i = first; i < end; ++i) meet(m.tiles[i], p.head_dim, m.keys, start, m.workspace);
}

// All tiles of the task meet all keys.
CSRM_TARGET void meet_keys(const PrefixAttentionParams& p, const AttentionTask& task, Meet meet,
                           Memory& m) {
  const int64_t n_tiles = task.end_tile - task.first_tile;
  int64_t most_seen = 0;
  for (int64_t i = 0; i < n_tiles; ++i) most_seen = std::max(most_seen, m.tiles[i].most_seen);
  for (int64_t start = 0; start < most_seen; start += kKeyBlock) {
    for (int64_t first = 0, end; first < n_tiles; first = end) {
      for (end = first; end < n_tiles && m.tiles[end].batch == m.tiles[first].batch;) ++end;
      meet_block(p, task, first, end, start, meet, m);
    }
  }
}

// Whether the weights of the row left the numbers that sums of them and of values can be had of.
inline bool is_out_of_range(const RowTile& t, int64_t row) {
  return t.seen[row] > 0 && (t.total[row] < kLeastTotal || t.total[row] > 1 / kLeastTotal);
}

// Gives the rows that are out of range a shift; true if there are such, and all sums begin anew.
CSRM_TARGET bool shift_rows(const PrefixAttentionParams& p, const AttentionTask& task, Memory& m) {
  const int64_t n_tiles = task.end_tile - task.first_tile;
  bool is_any = false;
  for (int64_t i = 0; i < n_tiles; ++i) {
    for (int64_t r = 0; r < m.tiles[i].n_rows; ++r) is_any |= is_out_of_range(m.tiles[i], r);
    std::fill_n(m.tiles[i].highest, kTileRows, std::numeric_limits<float>::lowest());
  }
  if (!is_any) return false;
  meet_keys(p, task, find_highest, m);
  for (int64_t i = 0; i < n_tiles; ++i) {
    RowTile& t = m.tiles[i];
    for (int64_t r = 0; r < t.n_rows; ++r) {
      if (is_out_of_range(t, r)) t.shift[r] = std::ceil(t.highest[r]);
    }
    std::fill_n(t.sums, kTileRows * p.head_dim, 0.0f);
    std::fill_n(t.total, kTileRows, 0.0f);
  }
  return true;
}

CSRM_TARGET void run_task(const PrefixAttentionParams& p, const AttentionTask& task,
                          float* scratch) {
  Memory m;
  lay_out(p, scratch, &m);
  const int64_t n_tiles = task.end_tile - task.first_tile;
  int64_t most_rows = 1;
  for (int64_t i = 0; i < n_tiles; ++i) {
    start_tile(p, task, task.first_tile + i, m.tiles[i]);
    most_rows = std::max(most_rows, m.tiles[i].n_rows);
  }
  std::fill_n(m.workspace.ones, kTileWords, uint16_t{0x3f80});
  shape_tiles(most_rows);
  finish_stores();
  _tile_loadd(7, m.workspace.ones, kRowBytes);
  const int64_t head = p.layer * p.n_kv_heads + task.kv_head;
  PackedKeys& keys = m.keys;
  keys.use = PackedPrefix::Use::kNone;
  if (p.packed != nullptr && !p.is_half) {
    keys.use = p.packed->use(head);
    keys.prefix = p.packed->head(head);
  }
  meet_keys(p, task, attend, m);
  if (shift_rows(p, task, m)) meet_keys(p, task, attend, m);
  if (keys.use == PackedPrefix::Use::kFill) p.packed->end_fill(head);
  _tile_release();  // so that the system need not keep them when it switches threads
  for (int64_t i = 0; i < n_tiles; ++i) write_context(p, task, m.tiles[i]);
}

}  // namespace

const AttentionVersion kAttentionAmx{kTileRows, kTaskTiles, scratch_size, run_task};

}  // namespace csrm::kernels

#endif  // CSRM_HAS_AMX
