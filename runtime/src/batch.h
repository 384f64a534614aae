// Rows of blocks -> batches under a token budget -> the integer tensors of one engine call.
// Not: which blocks make a row (conversation_rows.h, prefix_encoder.h) or what is done with the
// results. Rows of similar length go together; no row is ever cut here.
#ifndef CSRM_SRC_BATCH_H_
#define CSRM_SRC_BATCH_H_

#include <cstddef>
#include <vector>

#include "engine.h"
#include "render.h"

namespace csrm {

// Consecutive blocks encoded as one sequence: a token sees its own block and those before it, or
// in the causal layout itself and the tokens before it.
struct Row {
  const Block* blocks = nullptr;  // n_blocks of them; owned by the caller
  size_t n_blocks = 0;
  size_t n_tokens = 0;
  std::vector<size_t> pooled;  // indices into `blocks` that the head reads
  size_t n_cue_tokens = 0;  // at the end of the row; later rows of a conversation do not see them
};

// Which tokens of a row see which, and where its positions begin.
struct RowLayout {
  bool is_causal = false;     // else a token sees its whole block, and each block starts at 0
  size_t first_position = 0;  // if is_causal: tokens before the row, all of them in the prefix
};

struct BatchBudget {
  size_t batch_tokens;   // bound of rows x longest row
  size_t prefix_tokens;  // every token attends to these too
};

// True if `n_rows` rows padded to `longest` tokens may be one engine call: rows x longest is at
// most batch_tokens, and the attention matrix stays bounded whatever the prefix.
bool fits_budget(size_t n_rows, size_t longest, const BatchBudget& budget);

// Groups of indices into `rows`, longest rows first. A group holds at least one row; one
// of several fits the budget.
std::vector<std::vector<size_t>> plan_batches(const std::vector<Row>& rows,
                                              const BatchBudget& budget);

// The integer tensors for `rows` at `indices`, padded to the longest; padding has visible = 0.
// The head reads the first token of a pooled block, or, if the layout is causal, the last.
// The prefix and the wanted outputs are left for the caller to set.
EncodeInput pack_rows(const std::vector<Row>& rows, const std::vector<size_t>& indices,
                      const RowLayout& layout);

}  // namespace csrm

#endif  // CSRM_SRC_BATCH_H_
