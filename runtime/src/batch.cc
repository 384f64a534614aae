#include "batch.h"

#include <algorithm>
#include <numeric>

namespace csrm {
namespace {

// Query x key pairs of one engine call and attention head: 8 Mi are 400 MB of scores at 12 heads.
constexpr size_t kMaxAttentionPairs = size_t{8} << 20;

void pack_row(const Row& row, size_t index, const RowLayout& layout, EncodeInput* input) {
  size_t at = index * static_cast<size_t>(input->row_tokens);
  int64_t end = 0;
  std::vector<int64_t> read_at;  // by block
  for (size_t b = 0; b < row.n_blocks; ++b) {
    const Block& block = row.blocks[b];
    const int64_t start = end;
    end += static_cast<int64_t>(block.ids.size());
    read_at.push_back(layout.is_causal ? end - 1 : start);
    const int64_t position =
        layout.is_causal ? static_cast<int64_t>(layout.first_position) + start : 0;
    for (size_t i = 0; i < block.ids.size(); ++i, ++at) {
      const auto offset = static_cast<int64_t>(i);
      input->input_ids[at] = block.ids[i];
      input->position_ids[at] = position + offset;
      input->segment_ids[at] = block.segment;
      input->visible[at] = layout.is_causal ? start + offset + 1 : end;
    }
  }
  const size_t first = index * static_cast<size_t>(input->n_pooled);
  for (size_t j = 0; j < row.pooled.size(); ++j) {
    input->pooled_at[first + j] = read_at[row.pooled[j]];
  }
}

}  // namespace

bool fits_budget(size_t n_rows, size_t longest, const BatchBudget& budget) {
  const size_t padded = n_rows * longest;
  return padded <= budget.batch_tokens &&
         padded * (longest + budget.prefix_tokens) <= kMaxAttentionPairs;
}

std::vector<std::vector<size_t>> plan_batches(const std::vector<Row>& rows,
                                              const BatchBudget& budget) {
  std::vector<size_t> order(rows.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return rows[a].n_tokens > rows[b].n_tokens; });
  std::vector<std::vector<size_t>> batches;
  for (const size_t index : order) {
    if (!batches.empty()) {
      const size_t longest = rows[batches.back().front()].n_tokens;
      if (fits_budget(batches.back().size() + 1, longest, budget)) {
        batches.back().push_back(index);
        continue;
      }
    }
    batches.push_back({index});
  }
  return batches;
}

EncodeInput pack_rows(const std::vector<Row>& rows, const std::vector<size_t>& indices,
                      const RowLayout& layout) {
  size_t longest = 0, most_pooled = 1;
  for (const size_t index : indices) {
    longest = std::max(longest, rows[index].n_tokens);
    most_pooled = std::max(most_pooled, rows[index].pooled.size());
  }
  EncodeInput input;
  input.n_rows = static_cast<int64_t>(indices.size());
  input.row_tokens = static_cast<int64_t>(longest);
  input.n_pooled = static_cast<int64_t>(most_pooled);
  const size_t n = indices.size() * longest;
  input.input_ids.assign(n, 0);
  input.position_ids.assign(n, 0);
  input.segment_ids.assign(n, 0);
  input.visible.assign(n, 0);
  input.pooled_at.assign(indices.size() * most_pooled, -1);
  for (size_t i = 0; i < indices.size(); ++i) pack_row(rows[indices[i]], i, layout, &input);
  return input;
}

}  // namespace csrm
