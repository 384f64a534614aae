// What prefix_attention_cpu.cc and the versions of PrefixAttention (prefix_attention_tile.h) tell
// each other. Not: arithmetic.
#ifndef CSRM_KERNELS_PREFIX_ATTENTION_BLOCK_H_
#define CSRM_KERNELS_PREFIX_ATTENTION_BLOCK_H_

#include <cstddef>
#include <cstdint>

#include "prefix_attention.h"

namespace csrm::kernels {

// Tiles of `vectors` vectors of `width` rows each at most; a row is a query of one head.
constexpr int64_t kTileVectors = 3;
// Tiles of one task: they share what they read of the prefix.
constexpr int64_t kTaskTiles = 4;

// Some tiles of one head of keys. Tiles are numbered along the batch, n_tiles to each entry of it.
struct AttentionTask {
  int64_t kv_head;
  int64_t n_sharing;  // heads of queries that read it
  int64_t first_tile, end_tile;
  int64_t n_tiles;  // of one batch entry
};

struct AttentionVersion {
  int64_t width;  // lanes of a vector
  // Floats of scratch that a task needs, 64-byte aligned.
  size_t (*scratch_size)(const PrefixAttentionParams& params);
  void (*run)(const PrefixAttentionParams& params, const AttentionTask& task, float* scratch);
};

extern const AttentionVersion kAttentionPortable, kAttentionAvx2, kAttentionAvx512;

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_PREFIX_ATTENTION_BLOCK_H_
