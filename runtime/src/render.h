// Rules and turns -> blocks of token ids with integer control ids: the one renderer, which training
// calls too. Not: tokenising (tokenizer.h) or batching (scorer.cc).
//
//   rule block   [cls] [rule] name-ids [name_end] text-ids [sep]
//   without name [cls] [rule] text-ids [sep]
//   turn block   [cls] [role] content-ids [sep]
//
// A text longer than one block becomes several blocks (chunks) with the same control ids at their
// ends; a rule's chunks each carry its name. Nothing is dropped. Positions restart in each block.
// A name of more than max_block_tokens / 2 ids is not repeated: name-ids, name_end and text-ids are
// then one sequence, cut into blocks `[cls] [rule] part [sep]`.
#ifndef CSRM_SRC_RENDER_H_
#define CSRM_SRC_RENDER_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "csrm/status.h"
#include "csrm/types.h"
#include "tokenizer.h"

namespace csrm {

// Control ids and sizes, from the manifest's "template" object. The ids are rows of the embedding
// table that the tokenizer never produces from text.
struct Template {
  int32_t cls, sep, rule, name_end;
  int32_t roles[4];          // by Role
  int32_t max_block_tokens;  // control ids included; at least 16
  int32_t n_turn_indices;    // at least 1; turns beyond the last index share it (not a limit)
};

// One unit of encoding.
struct Block {
  std::vector<int32_t> ids;
  int32_t segment;      // 0 for a rule, 1 + min(turn, n_turn_indices - 1) for a turn
  size_t source;        // index of the rule in the config, or of the turn in the conversation
  size_t n_content;     // ids that came from text
  bool is_cue = false;  // of the causal layout: no later block sees it (render_chat.h)
};

// Errors: BadArgument when an id is not below `vocab_size` or is used twice, or a size is outside
// the range stated above. The render functions need a template that passed.
Status check_template(const Template& tmpl, size_t vocab_size);

// Appends the blocks of one rule; on error `blocks` is as it was. Errors: BadUtf8; EmptyConfig when
// name and text give no ids.
Status render_rule(const Tokenizer& tokenizer, const Template& tmpl, const Rule& rule, size_t index,
                   std::vector<Block>* blocks);

// Appends the blocks of one turn (an empty content gives one block with n_content = 0); on error
// `blocks` is as it was. Errors: BadUtf8.
Status render_turn(const Tokenizer& tokenizer, const Template& tmpl, const Turn& turn, size_t index,
                   std::vector<Block>* blocks);

// The role named by `name` ("system", "user", "assistant", "tool"). Errors: UnknownRole.
Result<Role> role_from_name(std::string_view name);

}  // namespace csrm

#endif  // CSRM_SRC_RENDER_H_
