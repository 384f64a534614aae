// Rules and turns -> one causal sequence of token ids, the layout of decoders ("csrm-chat-1"): the
// one renderer, which training calls too. Not: the block layout of encoders (render.h).
//
//   config   config_head "S1: name. text\n" "S2: text\n" ... config_end
//   turn     roles[role] content turn_end
//   cue      asked after a judged turn; its last token is where the reward is read
//
// Positions run through the sequence. What stands in quotes is tokenised text, a rule's line as one
// text; the rest comes from the manifest's template, resolved once at load. No text yields a
// control id: those are integers of the template. A cue is seen by nothing that follows it: it is
// always the end of a row, and its keys and values are not kept (turn_scores.h). Blocks here are
// pieces of at most max_block_tokens tokens, so that memory for attention is bounded; they have no
// meaning else.
#ifndef CSRM_SRC_RENDER_CHAT_H_
#define CSRM_SRC_RENDER_CHAT_H_

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "csrm/status.h"
#include "csrm/types.h"
#include "render.h"
#include "tokenizer.h"

namespace csrm {

// A control id, or a text that is tokenised when the template is resolved.
using Piece = std::variant<int32_t, std::string>;
using Pieces = std::vector<Piece>;

// The manifest's "template" object of a decoder.
struct ChatPieces {
  Pieces config_head, config_end, turn_end, cue;
  Pieces roles[4];  // by Role
  int32_t max_block_tokens = 0;
};

// The same as token ids.
struct ChatTemplate {
  std::vector<int32_t> config_head, config_end, turn_end, cue;
  std::vector<int32_t> roles[4];  // by Role
  size_t max_block_tokens = 0;
};

// Tokenises the texts of `pieces`. Errors: BadArgument (no id in config_head or cue,
// max_block_tokens below 16, a negative control id), BadUtf8.
Result<ChatTemplate> resolve_chat(const ChatPieces& pieces, const Tokenizer& tokenizer);

// Appends the blocks of a whole config; on error `blocks` is as it was.
// Errors: BadUtf8; EmptyConfig when name and text of a rule are blank.
Status render_chat_config(const Tokenizer& tokenizer, const ChatTemplate& tmpl,
                          const std::vector<Rule>& rules, std::vector<Block>* blocks);

// Appends the blocks of one turn, without a cue; n_content is 0 in all of them if the content is
// blank. On error `blocks` is as it was. Errors: BadUtf8.
Status render_chat_turn(const Tokenizer& tokenizer, const ChatTemplate& tmpl, const Turn& turn,
                        size_t index, std::vector<Block>* blocks);

// The cue that asks about turn `index`.
Block chat_cue(const ChatTemplate& tmpl, size_t index);

}  // namespace csrm

#endif  // CSRM_SRC_RENDER_CHAT_H_
