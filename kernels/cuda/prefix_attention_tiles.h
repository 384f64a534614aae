// How PrefixAttention on a GPU cuts its work, as pure functions: which rows and keys a block takes,
// where a lane of a tensor-core step reads. The kernels call them on the
// device, tests/cpp/test_cuda_tiles.cc on the host, where every cut is counted. Not: anything that
// touches memory.
//
// A row is a query of one head, numbered b * Q * G + q * G + g for the G query heads that read one
// head of keys. Keys are the prefix, then the own row; both are cut into parts of part_keys(D)
// keys. Every part is attended on its own and the parts are merged in order, whoever computed them:
// so a cut changes no bit.
#ifndef CSRM_KERNELS_CUDA_PREFIX_ATTENTION_TILES_H_
#define CSRM_KERNELS_CUDA_PREFIX_ATTENTION_TILES_H_

#include <cstdint>

#ifdef __CUDACC__
#define CSRM_HOST_DEVICE __host__ __device__
#else
#define CSRM_HOST_DEVICE
#endif

namespace csrm::kernels::cuda {

constexpr int kMmaWarps = 4;
constexpr int kMmaThreads = kMmaWarps * 32;
// Dimensions of mma.m16n8k16: rows, columns and depth of one step.
constexpr int kMmaRows = 16, kMmaColumns = 8, kMmaDepth = 16;
// Elements between rows in shared memory beyond D: 16 bytes, so that the eight rows a matrix load
// takes lie in different banks.
constexpr int kRowPadding = 8;

// Keys of one step of the online softmax and keys of one part. They fix the order of all sums, so
// they depend on head_dim alone.
constexpr int block_keys(int head_dim) { return head_dim == 128 ? 32 : 64; }
constexpr int part_keys(int head_dim) { return head_dim == 128 ? 512 : 256; }

CSRM_HOST_DEVICE constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
CSRM_HOST_DEVICE constexpr int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

// The sizes that decide the cut; all counts fit an int.
struct AttentionCut {
  int n_batch;
  int rows_per_entry;  // Q * G
  int n_prefix, n_tokens;
  int part_keys;
  int tile_rows;

  CSRM_HOST_DEVICE int n_prefix_parts() const {
    return static_cast<int>(ceil_div(n_prefix, part_keys));
  }
  CSRM_HOST_DEVICE int n_own_parts() const {
    return static_cast<int>(ceil_div(n_tokens, part_keys));
  }
  CSRM_HOST_DEVICE int n_parts() const { return n_prefix_parts() + n_own_parts(); }
  CSRM_HOST_DEVICE int tiles_per_entry() const {
    return static_cast<int>(ceil_div(rows_per_entry, tile_rows));
  }
  // Tiles of rows regardless of their entry, for parts that every row of the batch sees.
  CSRM_HOST_DEVICE int shared_tiles() const {
    return static_cast<int>(ceil_div(static_cast<int64_t>(n_batch) * rows_per_entry, tile_rows));
  }
  CSRM_HOST_DEVICE int64_t whole_blocks() const {
    return static_cast<int64_t>(n_batch) * tiles_per_entry();
  }
  CSRM_HOST_DEVICE int64_t split_blocks() const {
    return static_cast<int64_t>(n_prefix_parts()) * shared_tiles() +
           static_cast<int64_t>(n_own_parts()) * whole_blocks();
  }
};

// What one block does for one head of keys.
struct AttentionWork {
  int first_row, n_rows;  // n_rows in [1, tile_rows]; of one entry, unless all parts are prefix
  int entry;              // whose keys the own parts are
  int first_part, end_part;
};

CSRM_HOST_DEVICE inline AttentionWork entry_work(const AttentionCut& cut, int64_t tile) {
  const int n = cut.tiles_per_entry();
  AttentionWork work;
  work.entry = static_cast<int>(tile / n);
  const int row = static_cast<int>(tile % n) * cut.tile_rows;
  work.first_row = work.entry * cut.rows_per_entry + row;
  work.n_rows = static_cast<int>(at_most(cut.tile_rows, cut.rows_per_entry - row));
  work.first_part = 0;
  work.end_part = cut.n_parts();
  return work;
}

// Block `i` of whole_blocks().
CSRM_HOST_DEVICE inline AttentionWork whole_work(const AttentionCut& cut, int64_t i) {
  return entry_work(cut, i);
}

// Block `i` of split_blocks(): parts of the prefix first; neighbours share a part.
CSRM_HOST_DEVICE inline AttentionWork split_work(const AttentionCut& cut, int64_t i) {
  const int64_t n_prefix_blocks = static_cast<int64_t>(cut.n_prefix_parts()) * cut.shared_tiles();
  AttentionWork work;
  if (i < n_prefix_blocks) {
    const int tiles = cut.shared_tiles();
    work.first_part = static_cast<int>(i / tiles);
    work.first_row = static_cast<int>(i % tiles) * cut.tile_rows;
    const int64_t n_rows = static_cast<int64_t>(cut.n_batch) * cut.rows_per_entry;
    work.n_rows = static_cast<int>(at_most(cut.tile_rows, n_rows - work.first_row));
    work.entry = 0;
  } else {
    i -= n_prefix_blocks;
    work = entry_work(cut, i % cut.whole_blocks());
    work.first_part = cut.n_prefix_parts() + static_cast<int>(i / cut.whole_blocks());
  }
  work.end_part = work.first_part + 1;
  return work;
}

// The keys first .. end - 1 of the prefix or of the own row.
struct AttentionKeys {
  bool is_own;
  int first, end;
};

CSRM_HOST_DEVICE inline AttentionKeys keys_of_part(const AttentionCut& cut, int part) {
  AttentionKeys keys;
  keys.is_own = part >= cut.n_prefix_parts();
  const int own = part - cut.n_prefix_parts();
  keys.first = (keys.is_own ? own : part) * cut.part_keys;
  const int64_t end = static_cast<int64_t>(keys.first) + cut.part_keys;
  keys.end = static_cast<int>(at_most(end, keys.is_own ? cut.n_tokens : cut.n_prefix));
  return keys;
}

// Which of the tile's rows register `half` (0, 1) of row tile `i` of a lane belongs to, and where
// its pairs of columns begin: the layout of accumulators and of the left operand (PTX ISA,
// m16n8k16).
CSRM_HOST_DEVICE constexpr int lane_row(int warp, int row_tiles, int i, int half, int lane) {
  return (warp * row_tiles + i) * kMmaRows + half * 8 + lane / 4;
}
CSRM_HOST_DEVICE constexpr int lane_column(int lane) { return lane % 4 * 2; }

// Which row and column of a 16 x 16 patch a lane points a four-matrix load at.
struct PatchPlace {
  int row, column;
};
// Of keys, rows = keys: registers 0, 1 are the right operand of keys 0-7, 2, 3 of keys 8-15.
CSRM_HOST_DEVICE constexpr PatchPlace key_patch(int lane) {
  return {lane / 16 * 8 + lane % 8, lane / 8 % 2 * 8};
}
// Of values, rows = keys, transposed by the load: registers 0, 1 are the right operand of columns
// 0-7, registers 2, 3 of columns 8-15.
CSRM_HOST_DEVICE constexpr PatchPlace value_patch(int lane) {
  return {lane / 8 % 2 * 8 + lane % 8, lane / 16 * 8};
}

// How kMma cuts a call: parts over blocks or not, and rows of a tile, 64 or 128.
struct AttentionPlan {
  bool is_split;
  int tile_rows;
};

// kAuto: to split pays if whole tiles cannot fill the machine, or if entries have so few rows that
// tiles of one entry would be mostly empty and each would read the prefix.
inline bool splitting_pays(const AttentionCut& cut, int n_kv_heads, int n_processors) {
  const bool is_small = cut.whole_blocks() * n_kv_heads < 2 * static_cast<int64_t>(n_processors);
  const bool is_sparse = cut.n_batch > 1 && cut.rows_per_entry * 2 <= cut.tile_rows;
  return is_small || (is_sparse && cut.n_prefix > 0);
}

// `cut` with tiles of kSmallTileRows. Large tiles read less per row and need enough of them; at
// head_dim 128 their accumulators do not fit a thread's registers.
constexpr int kSmallTileRows = kMmaWarps * kMmaRows;
inline AttentionPlan attention_plan(const AttentionCut& cut, int head_dim, int n_kv_heads,
                                    int n_processors, bool may_split, bool must_split) {
  AttentionPlan plan{false, kSmallTileRows};
  plan.is_split = cut.n_parts() > 1 &&
                  (must_split || (may_split && splitting_pays(cut, n_kv_heads, n_processors)));
  if (head_dim == 128) return plan;
  AttentionCut large = cut;
  large.tile_rows = 2 * kSmallTileRows;
  const int64_t blocks = plan.is_split ? large.split_blocks() : large.whole_blocks();
  const bool is_filled = plan.is_split ? large.shared_tiles() > 1 : cut.tiles_per_entry() > 1;
  if (is_filled && blocks * n_kv_heads >= 2 * static_cast<int64_t>(n_processors)) {
    plan.tile_rows = large.tile_rows;
  }
  return plan;
}

}  // namespace csrm::kernels::cuda

#endif  // CSRM_KERNELS_CUDA_PREFIX_ATTENTION_TILES_H_
