// How PrefixAttention on a GPU cuts its work (kernels/cuda/prefix_attention_tiles.h), counted on
// the host: no GPU and no CUDA toolkit. What a tile computes: tests/cpp/cuda.
#include <algorithm>
#include <vector>

#include "check.h"
#include "kernels/cuda/prefix_attention_tiles.h"

namespace {

using namespace csrm::kernels::cuda;

AttentionCut cut_of(int batch, int rows, int prefix, int tokens, int tile_rows) {
  return {batch, rows, prefix, tokens, part_keys(32), tile_rows};
}

const int kBatches[] = {1, 2, 3, 64}, kRows[] = {1, 3, 63, 64, 65, 130}, kTileRows[] = {64, 128};
const int kKeys[] = {0, 1, 255, 256, 257, 4096};

template <typename Body>
void for_each_cut(Body body) {
  for (int batch : kBatches) {
    for (int rows : kRows) {
      for (int tile_rows : kTileRows) {
        for (int prefix : kKeys) {
          for (int tokens : kKeys) body(cut_of(batch, rows, prefix, tokens, tile_rows));
        }
      }
    }
  }
}

// How often each part of each row is taken by the works; and each work is inside its bounds.
struct Cover {
  std::vector<int> counts;
  bool is_inside = true;

  explicit Cover(const AttentionCut& cut)
      : counts(static_cast<size_t>(cut.n_batch) * cut.rows_per_entry * cut.n_parts()) {}

  void add(const AttentionCut& cut, const AttentionWork& work) {
    const int n_rows = cut.n_batch * cut.rows_per_entry;
    is_inside = is_inside && work.n_rows >= 1 && work.n_rows <= cut.tile_rows &&
                work.first_row >= 0 && work.first_row + work.n_rows <= n_rows;
    if (!is_inside) return;
    for (int part = work.first_part; part < work.end_part; ++part) {
      for (int row = work.first_row; row < work.first_row + work.n_rows; ++row) {
        ++counts[static_cast<size_t>(part) * n_rows + row];
        const bool is_own = keys_of_part(cut, part).is_own;
        is_inside = is_inside && (!is_own || row / cut.rows_per_entry == work.entry);
      }
    }
  }
  bool is_once() const {
    return is_inside && std::all_of(counts.begin(), counts.end(), [](int n) { return n == 1; });
  }
};

void test_cuda_tiles_whole_takes_every_row_and_part_once() {
  for_each_cut([](const AttentionCut& cut) {
    Cover cover(cut);
    for (int64_t i = 0; i < cut.whole_blocks(); ++i) cover.add(cut, whole_work(cut, i));
    CHECK(cover.is_once());
  });
}

void test_cuda_tiles_split_takes_every_row_and_part_once() {
  for_each_cut([](const AttentionCut& cut) {
    Cover cover(cut);
    for (int64_t i = 0; i < cut.split_blocks(); ++i) cover.add(cut, split_work(cut, i));
    CHECK(cover.is_once());
  });
}

void test_cuda_tiles_parts_hold_every_key_once_in_order() {
  for (int prefix : kKeys) {
    for (int tokens : kKeys) {
      const AttentionCut cut = cut_of(1, 1, prefix, tokens, 64);
      int seen[2] = {0, 0};
      for (int part = 0; part < cut.n_parts(); ++part) {
        const AttentionKeys keys = keys_of_part(cut, part);
        CHECK(keys.first == seen[keys.is_own] && keys.end > keys.first);
        CHECK(keys.end - keys.first <= cut.part_keys && keys.first % block_keys(32) == 0);
        CHECK(!keys.is_own || seen[0] == prefix);
        seen[keys.is_own] = keys.end;
      }
      CHECK(seen[0] == prefix && seen[1] == tokens);
    }
  }
}

void test_cuda_tiles_lanes_hold_every_row_of_a_tile() {
  for (int row_tiles : {1, 2}) {
    std::vector<int> counts(static_cast<size_t>(kMmaWarps) * row_tiles * kMmaRows);
    for (int thread = 0; thread < kMmaThreads; ++thread) {
      for (int i = 0; i < row_tiles; ++i) {
        for (int half = 0; half < 2; ++half) {
          ++counts[lane_row(thread / 32, row_tiles, i, half, thread % 32)];
        }
      }
    }
    for (int n : counts) CHECK(n == 4);  // the four lanes of a row
  }
}

void test_cuda_tiles_patches_name_every_sixteen_bytes_once() {
  for (auto patch : {key_patch, value_patch}) {
    int counts[16][2] = {};
    for (int lane = 0; lane < 32; ++lane) {
      const PatchPlace place = patch(lane);
      CHECK(place.row >= 0 && place.row < 16 && (place.column == 0 || place.column == 8));
      ++counts[place.row][place.column / 8];
    }
    for (const auto& row : counts) CHECK(row[0] == 1 && row[1] == 1);
  }
}

// What a plan depends on may change the time only, but a split needs two parts and leave to split.
void test_cuda_tiles_plan_splits_only_where_it_may() {
  for_each_cut([](const AttentionCut& cut) {
    if (cut.tile_rows != kSmallTileRows) return;
    for (int head_dim : {32, 128}) {
      CHECK(!attention_plan(cut, head_dim, 4, 132, false, false).is_split);
      const AttentionPlan plan = attention_plan(cut, head_dim, 4, 132, true, true);
      CHECK(plan.is_split == (cut.n_parts() > 1));
      CHECK(plan.tile_rows == 64 || (plan.tile_rows == 128 && head_dim == 32));
    }
  });
}

}  // namespace

int main() {
  test_cuda_tiles_whole_takes_every_row_and_part_once();
  test_cuda_tiles_split_takes_every_row_and_part_once();
  test_cuda_tiles_parts_hold_every_key_once_in_order();
  test_cuda_tiles_lanes_hold_every_row_of_a_tile();
  test_cuda_tiles_patches_name_every_sixteen_bytes_once();
  test_cuda_tiles_plan_splits_only_where_it_may();
  return csrm_test::summary();
}
