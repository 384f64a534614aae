// A conversation -> its blocks up to the last judged turn -> rows for the engine.
// Not: scoring (turn_scores.h). A turn never sees a later one, so turns after the last judged turn
// are checked but not encoded; everything else is, however long it is.
#ifndef CSRM_SRC_CONVERSATION_ROWS_H_
#define CSRM_SRC_CONVERSATION_ROWS_H_

#include <cstddef>
#include <vector>

#include "batch.h"
#include "csrm/status.h"
#include "csrm/types.h"
#include "layout.h"
#include "tokenizer.h"

namespace csrm {

struct ConversationBlocks {
  std::vector<Block> blocks;
  std::vector<bool> judged;  // by block; at least one is true
  size_t n_tokens = 0;       // of all blocks
  size_t n_positions = 0;    // of the causal layout: those the longest row needs after the config
};

// Renders and checks every turn. Judged::kLast judges the last turn, Judged::kAssistant every
// assistant turn that has text (one without text, such as a bare tool call, says nothing to judge).
// Errors: BadUtf8, UnknownRole, LimitExceeded, EmptyConversation (no turns, or no text to judge).
Result<ConversationBlocks> render_conversation(const Tokenizer& tokenizer, const Layout& layout,
                                               const Conversation& conversation, Judged judged,
                                               const Limits& limits);

// Rows of at most `max_tokens` tokens each (one block where a block alone is longer), cut between
// blocks and after every cue, in order. The rows point into `conversation`.
std::vector<Row> cut_rows(const ConversationBlocks& conversation, size_t max_tokens);

}  // namespace csrm

#endif  // CSRM_SRC_CONVERSATION_ROWS_H_
