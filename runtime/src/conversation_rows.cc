#include "conversation_rows.h"

#include <algorithm>
#include <string>

#include "limit_error.h"

namespace csrm {
namespace {

Status check_turn(const Turn& turn, size_t index, const Limits& limits) {
  const int role = static_cast<int>(turn.role);
  if (role < 0 || role > static_cast<int>(Role::kTool)) {
    return {Code::kUnknownRole, "turn " + std::to_string(index) + " has role number " +
                                    std::to_string(role) +
                                    "; use system, user, assistant or tool (0 to 3)"};
  }
  if (turn.content.size() > limits.max_text_bytes) {
    return limit_exceeded("bytes in turn " + std::to_string(index) + ":", turn.content.size(),
                          limits.max_text_bytes, "max_text_bytes", "split the turn");
  }
  return Status::success();
}

bool is_judged(const Conversation& conversation, size_t turn, Judged judged) {
  if (judged == Judged::kLast) return turn + 1 == conversation.size();
  return conversation[turn].role == Role::kAssistant;
}

// Appends the blocks of turn `index` and marks those that the head reads: the turn's own, or, in
// the causal layout, the cue put after it. Neither if the turn has no text.
Status append_turn(const Tokenizer& tokenizer, const Layout& layout, const Turn& turn, size_t index,
                   bool is_judged_turn, ConversationBlocks* rendered) {
  std::vector<Block>& blocks = rendered->blocks;
  const size_t first = blocks.size();
  Status status = layout.is_causal ? render_chat_turn(tokenizer, layout.chat, turn, index, &blocks)
                                   : render_turn(tokenizer, layout.blocks, turn, index, &blocks);
  if (!status.ok()) return status;
  for (size_t b = first; b < blocks.size(); ++b) {
    rendered->judged.push_back(!layout.is_causal && is_judged_turn && blocks[b].n_content != 0);
  }
  if (layout.is_causal && is_judged_turn && blocks.size() > first && blocks.back().n_content != 0) {
    blocks.push_back(chat_cue(layout.chat, index));
    rendered->judged.push_back(true);
  }
  return status;
}

size_t positions_of(const std::vector<Block>& blocks) {
  size_t n_kept = 0, n_most = 0;
  for (const Block& block : blocks) {
    n_most = std::max(n_most, n_kept + block.ids.size());
    if (!block.is_cue) n_kept += block.ids.size();
  }
  return n_most;
}

}  // namespace

Result<ConversationBlocks> render_conversation(const Tokenizer& tokenizer, const Layout& layout,
                                               const Conversation& conversation, Judged judged,
                                               const Limits& limits) {
  if (conversation.size() > limits.max_turns) {
    return limit_exceeded("turns in a conversation:", conversation.size(), limits.max_turns,
                          "max_turns", "score a part of the conversation");
  }
  ConversationBlocks rendered;
  size_t n_kept = 0, n_kept_tokens = 0;
  for (size_t t = 0; t < conversation.size(); ++t) {
    if (Status bad = check_turn(conversation[t], t, limits); !bad.ok()) return bad;
    const size_t first = rendered.blocks.size();
    Status status = append_turn(tokenizer, layout, conversation[t], t,
                                is_judged(conversation, t, judged), &rendered);
    if (!status.ok()) return status;
    for (size_t b = first; b < rendered.blocks.size(); ++b) {
      rendered.n_tokens += rendered.blocks[b].ids.size();
      if (!rendered.judged[b]) continue;
      n_kept = b + 1;
      n_kept_tokens = rendered.n_tokens;
    }
    if (rendered.n_tokens > limits.max_conversation_tokens) {
      return limit_exceeded("tokens in a conversation: at least", rendered.n_tokens,
                            limits.max_conversation_tokens, "max_conversation_tokens",
                            "score a part of the conversation");
    }
  }
  if (n_kept == 0) {
    return {Code::kEmptyConversation,
            judged == Judged::kLast
                ? "the last turn has no text to judge; give a turn with text"
                : "no assistant turn has text to judge; give one, or judge the last turn"};
  }
  rendered.blocks.resize(n_kept);
  rendered.judged.resize(n_kept);
  rendered.n_tokens = n_kept_tokens;
  rendered.n_positions = positions_of(rendered.blocks);
  return rendered;
}

std::vector<Row> cut_rows(const ConversationBlocks& conversation, size_t max_tokens) {
  std::vector<Row> rows;
  for (size_t b = 0; b < conversation.blocks.size(); ++b) {
    const size_t n = conversation.blocks[b].ids.size();
    const bool follows_cue = b > 0 && conversation.blocks[b - 1].is_cue;
    if (rows.empty() || follows_cue || rows.back().n_tokens + n > max_tokens) {
      rows.emplace_back();
      rows.back().blocks = &conversation.blocks[b];
    }
    Row& row = rows.back();
    if (conversation.judged[b]) row.pooled.push_back(row.n_blocks);
    row.n_blocks += 1;
    row.n_tokens += n;
    if (conversation.blocks[b].is_cue) row.n_cue_tokens = n;
  }
  return rows;
}

}  // namespace csrm
