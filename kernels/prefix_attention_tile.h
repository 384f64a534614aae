// The arithmetic of PrefixAttention, written once over a vector type. Included by
// prefix_attention_portable.cc, _avx2.cc and _avx512.cc after the header that defines CSRM_TARGET
// and Vector, so that versions differ in width only. Not to be included anywhere else.
//
// A lane is a row: one query of one head. Keys and values are broadcast from where they lie, so
// nothing is packed, and a row never meets another one. Per row, in this order:
//   score[k] = chain of multiply-adds over d = 0 to D - 1, in units of log2
//   blocks of 64 keys counted from the first key it sees: highest score so far, weights 2^(score -
//   highest), their sum, and per d a chain of multiply-adds over the block's keys
// A key that a row does not see changes nothing in its lane, not even a sign of zero or a NaN.
#include <algorithm>
#include <cstdint>
#include <limits>

#include "power.h"
#include "prefix_attention_block.h"
#include "prefix_attention_keys.h"
#include "unroll.h"

namespace csrm::kernels {
namespace {

constexpr int kPowers = 4;  // side by side
constexpr int64_t kTileRows = kTileVectors * kWidth;
constexpr int64_t kTaskTiles = 4;

// A block of keys as one tile sees it.
struct Block {
  Span spans[2];
  int64_t n;            // keys
  int64_t n_all;        // the first ones, which every row sees
  const float* n_seen;  // [lanes] how many each row sees; read only if n_all < n
  float* scores;        // [n, lanes] scratch; then weights
  float* scale;         // [lanes] scratch: what the sums shrink by
};

template <int N, int K>
CSRM_TARGET inline void score(const float* query, int64_t n_dims, const float* key, int64_t stride,
                              float* scores) {
  Register sums[K][N];
  CSRM_UNROLL
  for (int k = 0; k < K; ++k) {
    CSRM_UNROLL
    for (int v = 0; v < N; ++v) sums[k][v] = Vector::set(0.0f);
  }
  for (int64_t d = 0; d < n_dims; ++d) {
    Register rows[N];
    CSRM_UNROLL
    for (int v = 0; v < N; ++v) rows[v] = Vector::load(query + (d * N + v) * kWidth);
    CSRM_UNROLL
    for (int k = 0; k < K; ++k) {
      const Register one = Vector::set(key[k * stride + d]);
      CSRM_UNROLL
      for (int v = 0; v < N; ++v) sums[k][v] = Vector::fma(one, rows[v], sums[k][v]);
    }
  }
  CSRM_UNROLL
  for (int k = 0; k < K; ++k) {
    CSRM_UNROLL
    for (int v = 0; v < N; ++v) Vector::store(scores + (k * N + v) * kWidth, sums[k][v]);
  }
}

// So many chains of a vector hide the latency of a multiply-add.
template <int N>
constexpr int kAtOnce = N == 1 ? 8 : 4;

template <int N>
CSRM_TARGET void score_block(const Tile& t, int64_t n_dims, const Block& b) {
  float* scores = b.scores;
  for (const Span& s : b.spans) {
    int64_t k = 0;
    for (; k + kAtOnce<N> <= s.n; k += kAtOnce<N>, scores += kAtOnce<N> * N * kWidth) {
      score<N, kAtOnce<N>>(t.query, n_dims, s.key + k * s.stride, s.stride, scores);
    }
    for (; k < s.n; ++k, scores += N * kWidth) {
      score<N, 1>(t.query, n_dims, s.key + k * s.stride, s.stride, scores);
    }
  }
}

// Scores of M keys from `first` on -> weights; returns `sum` plus those of the keys seen, in order.
template <int M>
CSRM_TARGET inline Register weigh_keys(const Block& b, int64_t first, int64_t lanes, float* scores,
                                       Register highest, Register seen, Register sum) {
  Register w[M];
  CSRM_UNROLL
  for (int j = 0; j < M; ++j) {
    w[j] = Vector::sub(Vector::load(scores + (first + j) * lanes), highest);
  }
  powers_of_two<M>(w);
  CSRM_UNROLL
  for (int j = 0; j < M; ++j) Vector::store(scores + (first + j) * lanes, w[j]);
  if (first + M > b.n_all) {
    CSRM_UNROLL
    for (int j = 0; j < M; ++j) {
      const Register at = Vector::set(static_cast<float>(first + j));
      w[j] = first + j < b.n_all ? w[j] : Vector::if_less(at, seen, w[j], Vector::set(0.0f));
    }
  }
  CSRM_UNROLL
  for (int j = 0; j < M; ++j) sum = Vector::add(sum, w[j]);
  return sum;
}

// Scores of one vector of rows -> weights; also highest, total and scale.
CSRM_TARGET inline void weigh(const Tile& t, const Block& b, int64_t v) {
  const int64_t lanes = t.n_vectors * kWidth;
  float* scores = b.scores + v * kWidth;
  const Register before = Vector::load(t.highest + v * kWidth);
  const Register least = Vector::set(std::numeric_limits<float>::lowest());
  const Register seen = b.n_all < b.n ? Vector::load(b.n_seen + v * kWidth) : least;
  Register highest = before;
  for (int64_t k = 0; k < b.n_all; ++k) {
    highest = Vector::max(Vector::load(scores + k * lanes), highest);
  }
  for (int64_t k = b.n_all; k < b.n; ++k) {
    const Register score = Vector::load(scores + k * lanes);
    const Register at = Vector::set(static_cast<float>(k));
    highest = Vector::max(Vector::if_less(at, seen, score, least), highest);
  }
  Register sum = Vector::set(0.0f);
  int64_t first = 0;
  for (; first + kPowers <= b.n; first += kPowers) {
    sum = weigh_keys<kPowers>(b, first, lanes, scores, highest, seen, sum);
  }
  for (; first < b.n; ++first) {
    sum = weigh_keys<1>(b, first, lanes, scores, highest, seen, sum);
  }
  Register scale[1] = {Vector::sub(before, highest)};
  powers_of_two<1>(scale);
  Vector::store(t.highest + v * kWidth, highest);
  Vector::store(b.scale + v * kWidth, scale[0]);
  const Register total = Vector::load(t.total + v * kWidth);
  Vector::store(t.total + v * kWidth, Vector::fma(total, scale[0], sum));
}

// Adds weight * value over keys [k0, k0 + n) of a block to D consecutive sums; n_seen null: every
// row sees them; scale null: the sums have been scaled.
template <int N, int D, bool kIsMasked>
CSRM_TARGET inline void add_values(const float* weights, int64_t k0, const float* value,
                                   int64_t stride, int64_t n, const float* n_seen,
                                   const float* scale, float* sums) {
  Register chains[D][N];
  CSRM_UNROLL
  for (int d = 0; d < D; ++d) {
    CSRM_UNROLL
    for (int v = 0; v < N; ++v) {
      chains[d][v] = Vector::load(sums + (d * N + v) * kWidth);
      if (scale != nullptr) {
        chains[d][v] = Vector::mul(chains[d][v], Vector::load(scale + v * kWidth));
      }
    }
  }
  for (int64_t k = 0; k < n; ++k) {
    Register rows[N];
    CSRM_UNROLL
    for (int v = 0; v < N; ++v) rows[v] = Vector::load(weights + (k * N + v) * kWidth);
    CSRM_UNROLL
    for (int d = 0; d < D; ++d) {
      const Register one = Vector::set(value[k * stride + d]);
      CSRM_UNROLL
      for (int v = 0; v < N; ++v) {
        const Register next = Vector::fma(one, rows[v], chains[d][v]);
        if (kIsMasked) {
          const Register at = Vector::set(static_cast<float>(k0 + k));
          chains[d][v] = Vector::if_less(at, Vector::load(n_seen + v * kWidth), next, chains[d][v]);
        } else {
          chains[d][v] = next;
        }
      }
    }
  }
  CSRM_UNROLL
  for (int d = 0; d < D; ++d) {
    CSRM_UNROLL
    for (int v = 0; v < N; ++v) Vector::store(sums + (d * N + v) * kWidth, chains[d][v]);
  }
}

// Keys [k0, k1) of the block, which lie in one span from its key `at` on.
template <int N, bool kIsMasked>
CSRM_TARGET void add_span(const Tile& t, int64_t n_dims, const Block& b, const Span& s, int64_t at,
                          int64_t k0, int64_t k1, const float* scale) {
  constexpr int kDims = kIsMasked ? 2 : kAtOnce<N>;
  const float* weights = b.scores + k0 * N * kWidth;
  const float* value = s.value + at * s.stride;
  int64_t d = 0;
  for (; d + kDims <= n_dims; d += kDims) {
    add_values<N, kDims, kIsMasked>(weights, k0, value + d, s.stride, k1 - k0, b.n_seen, scale,
                                    t.sums + d * N * kWidth);
  }
  for (; d < n_dims; ++d) {
    add_values<N, 1, kIsMasked>(weights, k0, value + d, s.stride, k1 - k0, b.n_seen, scale,
                                t.sums + d * N * kWidth);
  }
}

template <int N>
CSRM_TARGET void attend(const Tile& t, int64_t n_dims, const Block& b) {
  score_block<N>(t, n_dims, b);
  for (int64_t v = 0; v < N; ++v) weigh(t, b, v);
  const float* scale = b.scale;
  int64_t first = 0;  // of the span
  for (const Span& s : b.spans) {
    const int64_t end = first + s.n;
    const int64_t middle = std::clamp(b.n_all, first, end);
    if (first < middle) add_span<N, false>(t, n_dims, b, s, 0, first, middle, scale);
    if (first < middle) scale = nullptr;
    if (middle < end) add_span<N, true>(t, n_dims, b, s, middle - first, middle, end, scale);
    if (middle < end) scale = nullptr;
    first = end;
  }
}

CSRM_TARGET void attend_any(const Tile& t, int64_t n_dims, const Block& b) {
  if (t.n_vectors == 1) return attend<1>(t, n_dims, b);
  if (t.n_vectors == 2) return attend<2>(t, n_dims, b);
  attend<3>(t, n_dims, b);
}

size_t scratch_size(const PrefixAttentionParams& p) {
  constexpr int64_t kLanes = kTileVectors * kWidth;
  const int64_t tile = (2 * p.head_dim + 2) * kLanes;
  const int64_t copies = 2 * kKeyBlock * p.head_dim;
  return static_cast<size_t>(copies + kTaskTiles * tile + (kKeyBlock + 2) * kLanes);
}

// t.query = the queries of the tile's rows, times scale and log2(e).
CSRM_TARGET void read_queries(const PrefixAttentionParams& p, const AttentionTask& task,
                              const Tile& t) {
  const int64_t lanes = t.n_vectors * kWidth;
  for (int64_t first = 0; first < t.n_rows; first += 4) {
    const int64_t n = std::min<int64_t>(4, t.n_rows - first);
    const float* from[4];
    for (int64_t r = 0; r < n; ++r) {
      const AttentionRow row = row_of(p, task, t.batch, t.first_row + first + r);
      from[r] = p.query + row.query * p.query_width + p.query_offset + row.head * p.head_dim;
    }
    float* to = t.query + first;
    int64_t d = 0;
    for (; n == 4 && d + 4 <= p.head_dim; d += 4, to += 4 * lanes) {
      float* const square[4] = {to, to + lanes, to + 2 * lanes, to + 3 * lanes};
      Vector::transpose(from, square);
      for (const float*& row : from) row += 4;
    }
    for (; d < p.head_dim; ++d, to += lanes) {
      for (int64_t r = 0; r < n; ++r) to[r] = *from[r]++;
    }
  }
  const Register scale = Vector::set(p.scale * kLog2E);
  for (int64_t i = 0; i < p.head_dim * lanes; i += kWidth) {
    Vector::store(t.query + i, Vector::mul(Vector::load(t.query + i), scale));
  }
}

// The rows' contexts = t.sums.
CSRM_TARGET void write_context(const PrefixAttentionParams& p, const AttentionTask& task,
                               const Tile& t) {
  const int64_t lanes = t.n_vectors * kWidth;
  for (int64_t first = 0; first < t.n_rows; first += 4) {
    const int64_t n = std::min<int64_t>(4, t.n_rows - first);
    float* to[4];
    for (int64_t r = 0; r < n; ++r) {
      const AttentionRow row = row_of(p, task, t.batch, t.first_row + first + r);
      to[r] = p.context + (row.query * p.n_heads + row.head) * p.head_dim;
    }
    const float* from = t.sums + first;
    int64_t d = 0;
    for (; n == 4 && d + 4 <= p.head_dim; d += 4, from += 4 * lanes) {
      const float* const square[4] = {from, from + lanes, from + 2 * lanes, from + 3 * lanes};
      Vector::transpose(square, to);
      for (float*& row : to) row += 4;
    }
    for (; d < p.head_dim; ++d, from += lanes) {
      for (int64_t r = 0; r < n; ++r) *to[r]++ = from[r];
    }
  }
}

// Lays tile `i` out at `scratch` and fills it for the first block; returns where scratch goes on.
CSRM_TARGET float* start_tile(const PrefixAttentionParams& p, const AttentionTask& task, int64_t i,
                              float* scratch, Tile& t) {
  const int64_t n_rows = p.n_queries * task.n_sharing;
  const int64_t n_vectors = (n_rows + kWidth - 1) / kWidth;
  const int64_t first = i % task.n_tiles * kTileVectors;
  const int64_t end = std::min(first + kTileVectors, n_vectors);
  t.batch = i / task.n_tiles;
  t.n_vectors = end - first;
  t.first_row = first * kWidth;
  t.n_rows = std::min(end * kWidth, n_rows) - t.first_row;
  const int64_t lanes = t.n_vectors * kWidth;
  t.query = scratch;
  t.sums = t.query + p.head_dim * lanes;
  t.highest = t.sums + p.head_dim * lanes;
  t.total = t.highest + lanes;
  std::fill_n(t.query, (2 * p.head_dim + 2) * lanes, 0.0f);
  std::fill_n(t.highest, lanes, std::numeric_limits<float>::lowest());
  t.least_seen = std::numeric_limits<int64_t>::max();
  t.most_seen = 0;
  for (int64_t r = 0; r < t.n_rows; ++r) {
    const int64_t seen = seen_by(p, row_of(p, task, t.batch, t.first_row + r));
    t.least_seen = std::min(t.least_seen, seen);
    t.most_seen = std::max(t.most_seen, seen);
  }
  read_queries(p, task, t);
  return t.total + lanes;
}

CSRM_TARGET void finish_tile(const PrefixAttentionParams& p, const AttentionTask& task,
                             const Tile& t) {
  const int64_t lanes = t.n_vectors * kWidth;
  for (int64_t r = 0; r < t.n_rows; ++r) {
    const bool sees = seen_by(p, row_of(p, task, t.batch, t.first_row + r)) > 0;
    t.total[r] = sees ? 1.0f / t.total[r] : 0.0f;
  }
  for (int64_t d = 0; d < p.head_dim; ++d) {
    for (int64_t i = 0; i < lanes; i += kWidth) {
      float* at = t.sums + d * lanes + i;
      Vector::store(at, Vector::mul(Vector::load(at), Vector::load(t.total + i)));
    }
  }
  write_context(p, task, t);
}

// The keys [start, start + 64) that tile `t` sees: those of the prefix, then its own.
CSRM_TARGET void attend_from(const PrefixAttentionParams& p, const AttentionTask& task,
                             const Tile& t, int64_t start, const Span& prefix, const Span& own,
                             float* scratch) {
  const int64_t end = std::min(start + kKeyBlock, t.most_seen);
  const int64_t lanes = t.n_vectors * kWidth;
  Block b{};
  b.scores = scratch;
  b.scale = scratch + kKeyBlock * lanes;
  b.n = end - start;
  b.n_all = std::clamp<int64_t>(t.least_seen - start, 0, b.n);
  b.spans[0] = prefix;
  b.spans[1] = own;
  b.spans[1].n = b.n - prefix.n;
  if (b.n_all < b.n) {
    float* n_seen = b.scale + lanes;
    std::fill_n(n_seen, lanes, static_cast<float>(b.n));
    for (int64_t r = 0; r < t.n_rows; ++r) {
      const int64_t seen = seen_by(p, row_of(p, task, t.batch, t.first_row + r)) - start;
      n_seen[r] = static_cast<float>(std::clamp<int64_t>(seen, 0, b.n));
    }
    b.n_seen = n_seen;
  }
  attend_any(t, p.head_dim, b);
}

CSRM_TARGET void run_task(const PrefixAttentionParams& p, const AttentionTask& task,
                          float* scratch) {
  Tile tiles[kTaskTiles];
  float* copies = scratch;
  scratch += 2 * kKeyBlock * p.head_dim;
  const int64_t n_tiles = task.end_tile - task.first_tile;
  int64_t most_seen = 0;
  for (int64_t i = 0; i < n_tiles; ++i) {
    scratch = start_tile(p, task, task.first_tile + i, scratch, tiles[i]);
    most_seen = std::max(most_seen, tiles[i].most_seen);
  }
  // Block by block, so that what one tile has brought into the cache serves the others.
  for (int64_t start = 0; start < most_seen; start += kKeyBlock) {
    const Span prefix = prefix_keys(p, task, start, copies);
    Span own{};
    for (int64_t i = 0; i < n_tiles; ++i) {
      const bool is_next_row = i == 0 || tiles[i].batch != tiles[i - 1].batch;
      if (is_next_row && start + kKeyBlock > p.n_prefix) {
        own = own_keys(p, task, tiles, n_tiles, i, start, copies);
      }
      if (start < tiles[i].most_seen) {
        attend_from(p, task, tiles[i], start, prefix, own, scratch);
      }
    }
  }
  for (int64_t i = 0; i < n_tiles; ++i) finish_tile(p, task, tiles[i]);
}

}  // namespace
}  // namespace csrm::kernels
