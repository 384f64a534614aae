// The renderer of render_chat.h. Text becomes ids in Tokenizer::encode alone; control ids are
// appended as integers, here.
#include "render_chat.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace csrm {
namespace {

constexpr int32_t kMinBlockTokens = 16;

using Ids = std::vector<int32_t>;

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\n\v\f\r") == std::string_view::npos;
}

void append(const Ids& part, Ids* ids) { ids->insert(ids->end(), part.begin(), part.end()); }

Status bad_template(const std::string& what) { return {Code::kBadArgument, "template: " + what}; }

Status resolve(const Pieces& pieces, const Tokenizer& tokenizer, Ids* ids) {
  for (const Piece& piece : pieces) {
    if (const int32_t* id = std::get_if<int32_t>(&piece)) {
      if (*id < 0) return bad_template("a control id is negative");
      ids->push_back(*id);
      continue;
    }
    Status status = tokenizer.encode(std::get<std::string>(piece), ids);
    if (!status.ok()) return status;
  }
  return Status::success();
}

// Cuts `ids` into blocks of at most `max_block_tokens`.
void append_blocks(const Ids& ids, size_t max_block_tokens, size_t source, size_t n_content,
                   std::vector<Block>* blocks) {
  for (size_t begin = 0; begin < ids.size(); begin += max_block_tokens) {
    const size_t n = std::min(max_block_tokens, ids.size() - begin);
    const auto first = ids.begin() + static_cast<std::ptrdiff_t>(begin);
    blocks->push_back({Ids(first, first + static_cast<std::ptrdiff_t>(n)), 0, source, n_content});
  }
}

// "S<number>: <name>. <text>\n", as the paper writes a category; a blank part is left out.
std::string rule_line(const Rule& rule, size_t number) {
  std::string line = "S" + std::to_string(number) + ": ";
  if (!is_blank(rule.name)) line += rule.name + ". ";
  if (!is_blank(rule.text)) line += rule.text;
  return line + "\n";
}

}  // namespace

Result<ChatTemplate> resolve_chat(const ChatPieces& pieces, const Tokenizer& tokenizer) {
  if (pieces.max_block_tokens < kMinBlockTokens) {
    return bad_template("max_block_tokens is " + std::to_string(pieces.max_block_tokens) +
                        "; it must be at least " + std::to_string(kMinBlockTokens));
  }
  ChatTemplate tmpl;
  tmpl.max_block_tokens = static_cast<size_t>(pieces.max_block_tokens);
  std::vector<std::pair<const Pieces*, Ids*>> parts = {{&pieces.config_head, &tmpl.config_head},
                                                       {&pieces.config_end, &tmpl.config_end},
                                                       {&pieces.turn_end, &tmpl.turn_end},
                                                       {&pieces.cue, &tmpl.cue}};
  for (size_t r = 0; r < std::size(pieces.roles); ++r) {
    parts.emplace_back(&pieces.roles[r], &tmpl.roles[r]);
  }
  for (const auto& [from, to] : parts) {
    if (Status bad = resolve(*from, tokenizer, to); !bad.ok()) return bad;
  }
  if (tmpl.config_head.empty() || tmpl.cue.empty()) {
    return bad_template("config_head and cue must each hold at least one token");
  }
  return tmpl;
}

Status render_chat_config(const Tokenizer& tokenizer, const ChatTemplate& tmpl,
                          const std::vector<Rule>& rules, std::vector<Block>* blocks) {
  Ids ids = tmpl.config_head;
  for (size_t r = 0; r < rules.size(); ++r) {
    if (is_blank(rules[r].name) && is_blank(rules[r].text)) {
      return {Code::kEmptyConfig, "rule " + std::to_string(r) +
                                      " has neither a name nor a text with any token; remove it or "
                                      "give it a text"};
    }
    Status status = tokenizer.encode(rule_line(rules[r], r + 1), &ids);
    if (!status.ok()) return status;
  }
  const size_t n_content = ids.size() - tmpl.config_head.size();
  append(tmpl.config_end, &ids);
  append_blocks(ids, tmpl.max_block_tokens, 0, n_content, blocks);
  return Status::success();
}

Status render_chat_turn(const Tokenizer& tokenizer, const ChatTemplate& tmpl, const Turn& turn,
                        size_t index, std::vector<Block>* blocks) {
  Ids ids = tmpl.roles[static_cast<size_t>(turn.role)];
  const size_t n_head = ids.size();
  Status status = tokenizer.encode(turn.content, &ids);
  if (!status.ok()) return status;
  const size_t n_content = is_blank(turn.content) ? 0 : ids.size() - n_head;
  append(tmpl.turn_end, &ids);
  append_blocks(ids, tmpl.max_block_tokens, index, n_content, blocks);
  return Status::success();
}

Block chat_cue(const ChatTemplate& tmpl, size_t index) {
  Block cue{tmpl.cue, 0, index, 0};
  cue.is_cue = true;
  return cue;
}

}  // namespace csrm
