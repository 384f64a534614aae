// PrefixAttention on the CPU: how the work is cut into tasks, and their scratch memory. Each task
// is some tiles of one head, run by one version of the arithmetic (prefix_attention_tile.h in fp32,
// prefix_attention_amx.cc with products of bfloat16).
//
// The ladder of those in fp32; us for 12 heads of 32, 128 tokens over a prefix of 256, one thread
// of a Zen 2 that other work shared (gcc 12 -O2, least time of each task over 40 to 100 rounds;
// 0.66 = of 108 GFLOP/s, measured likewise):
//   1. portable, lanes in an array of a structure: 63600 (median of 20 calls of the operator), the
//      array lives in memory. In the compiler's vectors of 4: 3490. This is the portable version.
//   2. AVX2, tiles of 3 vectors of rows x 4 keys or columns: 1144, 0.61 (least of all tasks
//      together, so 3's gain is an upper bound). Keys and values are
//      broadcast from where they lie, so nothing is packed or transposed but queries and contexts.
//   3. those moved four by four: 1122, 0.62.
//   4. whole tiles first, own keys copied once for several tiles, the polynomial of the exponential
//      in three short chains, four at a time: 1076, 0.65.
//   5. no division per row where a head of keys has one of queries: 1056, 0.66. The AVX2 version.
// Of step 3 the scores alone take 463, scores and values without exponentials 857.
// Dropped: four or eight exponentials side by side with one long chain each, 1134 and 1122.
// AVX-512: the same text in vectors of 16, not timed. With vectors of 16 of the compiler the
// portable version gives the bits of that with 4.
#include "aligned.h"
#include "amx.h"
#include "prefix_attention.h"
#include "prefix_attention_block.h"

namespace csrm::kernels {

bool has_bf16_products(const PrefixAttentionParams& params, Isa isa) noexcept {
  constexpr int64_t kDepth = 32;  // of a product of tiles
  return params.is_bf16 && params.head_dim % kDepth == 0 && resolved_isa(isa) == Isa::kAmx &&
         has_amx_bf16();
}

namespace {

const AttentionVersion& version_of(const PrefixAttentionParams& params, Isa isa) noexcept {
#if CSRM_HAS_AMX
  if (has_bf16_products(params, isa)) return kAttentionAmx;
#endif
  switch (vector_isa(isa)) {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    case Isa::kAvx512:
      return kAttentionAvx512;
    case Isa::kAvx2:
      return kAttentionAvx2;
#endif
    default:
      return kAttentionPortable;
  }
}

struct Cut {
  int64_t n_tiles;   // of one batch entry
  int64_t n_groups;  // of tiles, over the batch: as many tasks per head of keys
};

Cut cut(const PrefixAttentionParams& p, const AttentionVersion& version) noexcept {
  const int64_t n_rows = p.n_queries * (p.n_heads / p.n_kv_heads);
  const int64_t n_tiles = (n_rows + version.tile_rows - 1) / version.tile_rows;
  return {n_tiles, (p.n_batch * n_tiles + version.task_tiles - 1) / version.task_tiles};
}

}  // namespace

size_t prefix_attention_tasks(const PrefixAttentionParams& params, Isa isa) noexcept {
  return static_cast<size_t>(params.n_kv_heads * cut(params, version_of(params, isa)).n_groups);
}

bool run_prefix_attention_task(const PrefixAttentionParams& params, Isa isa, size_t i) noexcept {
  const AttentionVersion& version = version_of(params, isa);
  const Cut c = cut(params, version);
  auto* memory = static_cast<float*>(thread_scratch(version.scratch_size(params) * sizeof(float)));
  if (memory == nullptr) return false;
  const int64_t group = static_cast<int64_t>(i) % c.n_groups;
  const int64_t n = params.n_batch * c.n_tiles;
  AttentionTask task{};
  task.kv_head = static_cast<int64_t>(i) / c.n_groups;
  task.n_sharing = params.n_heads / params.n_kv_heads;
  task.first_tile = n * group / c.n_groups;
  task.end_tile = n * (group + 1) / c.n_groups;
  task.n_tiles = c.n_tiles;
  version.run(params, task, memory);
  return true;
}

}  // namespace csrm::kernels
