#include "conversation_rows.h"

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

bool is_judged(const Conversation& conversation, const Block& block, Judged judged) {
  if (block.n_content == 0) return false;
  if (judged == Judged::kLast) return block.source + 1 == conversation.size();
  return conversation[block.source].role == Role::kAssistant;
}

}  // namespace

Result<ConversationBlocks> render_conversation(const Tokenizer& tokenizer, const Template& tmpl,
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
    Status status = render_turn(tokenizer, tmpl, conversation[t], t, &rendered.blocks);
    if (!status.ok()) return status;
    for (size_t b = first; b < rendered.blocks.size(); ++b) {
      const Block& block = rendered.blocks[b];
      rendered.n_tokens += block.ids.size();
      rendered.judged.push_back(is_judged(conversation, block, judged));
      if (!rendered.judged.back()) continue;
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
  return rendered;
}

std::vector<Row> cut_rows(const ConversationBlocks& conversation, size_t max_tokens) {
  std::vector<Row> rows;
  for (size_t b = 0; b < conversation.blocks.size(); ++b) {
    const size_t n = conversation.blocks[b].ids.size();
    if (rows.empty() || rows.back().n_tokens + n > max_tokens) {
      rows.emplace_back();
      rows.back().blocks = &conversation.blocks[b];
    }
    Row& row = rows.back();
    if (conversation.judged[b]) row.pooled.push_back(row.n_blocks);
    row.n_blocks += 1;
    row.n_tokens += n;
  }
  return rows;
}

}  // namespace csrm
