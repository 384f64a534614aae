// What prefix_attention_cpu.cc and the versions of PrefixAttention (prefix_attention_tile.h and
// prefix_attention_amx.cc) tell each other. Not: arithmetic.
#ifndef CSRM_KERNELS_PREFIX_ATTENTION_BLOCK_H_
#define CSRM_KERNELS_PREFIX_ATTENTION_BLOCK_H_

#include <cstddef>
#include <cstdint>

#include "prefix_attention.h"

namespace csrm::kernels {

// Of the versions in fp32: tiles of so many vectors of rows at most; a row is a query of one head.
constexpr int64_t kTileVectors = 3;

// Some tiles of one head of keys. Tiles are numbered along the batch, n_tiles to each entry of it.
struct AttentionTask {
  int64_t kv_head;
  int64_t n_sharing;  // heads of queries that read it
  int64_t first_tile, end_tile;
  int64_t n_tiles;  // of one batch entry
};

// Where a row of a batch entry lies: a query of one of the heads that share a head of keys.
struct AttentionRow {
  int64_t query;  // [B, Q] index
  int64_t head;
};

inline AttentionRow row_of(const PrefixAttentionParams& p, const AttentionTask& task, int64_t batch,
                           int64_t row) {
  // A division takes as long as a row of a vector.
  if (task.n_sharing == 1) return {batch * p.n_queries + row, task.kv_head};
  const int64_t query = row / task.n_sharing;
  const int64_t head = task.kv_head * task.n_sharing + row - query * task.n_sharing;
  return {batch * p.n_queries + query, head};
}

// Keys that it sees: all of the prefix, the first ones of its own row.
inline int64_t seen_by(const PrefixAttentionParams& p, const AttentionRow& row) {
  return p.n_prefix + p.visible[row.query];
}

struct AttentionVersion {
  int64_t tile_rows;   // of a tile at most
  int64_t task_tiles;  // of a task at most: they share what they read of the prefix
  // Floats of scratch that a task needs, 64-byte aligned.
  size_t (*scratch_size)(const PrefixAttentionParams& params);
  void (*run)(const PrefixAttentionParams& params, const AttentionTask& task, float* scratch);
};

extern const AttentionVersion kAttentionPortable, kAttentionAvx2, kAttentionAvx512;
extern const AttentionVersion kAttentionAmx;  // products of bfloat16

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_PREFIX_ATTENTION_BLOCK_H_
