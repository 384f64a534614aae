// The renderer of render.h. Everything textual comes from Tokenizer::encode, everything structural
// from the Template: the two meet only as integers, here.
#include "render.h"

#include <algorithm>
#include <string>
#include <utility>

namespace csrm {
namespace {

constexpr int32_t kMinBlockTokens = 16;
constexpr std::string_view kRoleNames[] = {"system", "user", "assistant", "tool"};  // by Role

// What all blocks of one rule or turn share.
struct Frame {
  std::vector<int32_t> head;
  int32_t sep;
  int32_t segment;
  size_t source;
  size_t name_ids;  // ids in `head` that came from text
};

// Cuts `body` into blocks `head part [sep]`; `divider` is the index of a control id in `body`, or
// its size. One block for an empty body.
void append_blocks(const Frame& frame, const std::vector<int32_t>& body, size_t divider,
                   size_t max_block_tokens, std::vector<Block>* blocks) {
  const size_t capacity = max_block_tokens - frame.head.size() - 1;
  size_t begin = 0;
  do {
    const size_t end = std::min(begin + capacity, body.size());
    Block block{{}, frame.segment, frame.source, frame.name_ids + (end - begin)};
    if (divider >= begin && divider < end) --block.n_content;
    block.ids.reserve(frame.head.size() + (end - begin) + 1);
    block.ids = frame.head;
    block.ids.insert(block.ids.end(), body.data() + begin, body.data() + end);
    block.ids.push_back(frame.sep);
    blocks->push_back(std::move(block));
    begin = end;
  } while (begin < body.size());
}

Status bad_template(const std::string& what) { return {Code::kBadArgument, "template: " + what}; }

}  // namespace

Status check_template(const Template& tmpl, size_t vocab_size) {
  std::vector<int32_t> ids{tmpl.cls, tmpl.sep, tmpl.rule, tmpl.name_end};
  ids.insert(ids.end(), std::begin(tmpl.roles), std::end(tmpl.roles));
  std::sort(ids.begin(), ids.end());
  if (ids.front() < 0 || static_cast<size_t>(ids.back()) >= vocab_size) {
    return bad_template("control ids span " + std::to_string(ids.front()) + " to " +
                        std::to_string(ids.back()) + "; they must be in [0, " +
                        std::to_string(vocab_size) + ")");
  }
  const auto repeated = std::adjacent_find(ids.begin(), ids.end());
  if (repeated != ids.end()) {
    return bad_template("control id " + std::to_string(*repeated) +
                        " is used twice; each control token needs its own");
  }
  if (tmpl.max_block_tokens < kMinBlockTokens) {
    return bad_template("max_block_tokens is " + std::to_string(tmpl.max_block_tokens) +
                        "; it must be at least " + std::to_string(kMinBlockTokens));
  }
  if (tmpl.n_turn_indices < 1) {
    return bad_template("n_turn_indices is " + std::to_string(tmpl.n_turn_indices) +
                        "; it must be at least 1");
  }
  return Status::success();
}

Status render_rule(const Tokenizer& tokenizer, const Template& tmpl, const Rule& rule, size_t index,
                   std::vector<Block>* blocks) {
  std::vector<int32_t> body;
  Status status = tokenizer.encode(rule.name, &body);
  if (!status.ok()) return status;
  const size_t n_name = body.size();
  if (n_name != 0) body.push_back(tmpl.name_end);
  status = tokenizer.encode(rule.text, &body);
  if (!status.ok()) return status;
  if (body.empty()) {
    return {Code::kEmptyConfig, "rule " + std::to_string(index) +
                                    " has neither a name nor a text with any token; remove it or "
                                    "give it a text"};
  }
  const auto max_block_tokens = static_cast<size_t>(tmpl.max_block_tokens);
  Frame frame{{tmpl.cls, tmpl.rule}, tmpl.sep, 0, index, 0};
  size_t divider = n_name == 0 ? body.size() : n_name;
  if (n_name != 0 && n_name <= max_block_tokens / 2) {
    const auto name_end = body.begin() + static_cast<std::ptrdiff_t>(n_name) + 1;
    frame.head.insert(frame.head.end(), body.begin(), name_end);
    frame.name_ids = n_name;
    body.erase(body.begin(), name_end);
    divider = body.size();
  }
  append_blocks(frame, body, divider, max_block_tokens, blocks);
  return Status::success();
}

Status render_turn(const Tokenizer& tokenizer, const Template& tmpl, const Turn& turn, size_t index,
                   std::vector<Block>* blocks) {
  std::vector<int32_t> content;
  const Status status = tokenizer.encode(turn.content, &content);
  if (!status.ok()) return status;
  const size_t last_index = static_cast<size_t>(tmpl.n_turn_indices) - 1;
  const auto segment = static_cast<int32_t>(1 + std::min(index, last_index));
  const int32_t role = tmpl.roles[static_cast<size_t>(turn.role)];
  append_blocks({{tmpl.cls, role}, tmpl.sep, segment, index, 0}, content, content.size(),
                static_cast<size_t>(tmpl.max_block_tokens), blocks);
  return Status::success();
}

Result<Role> role_from_name(std::string_view name) {
  const auto* found = std::find(std::begin(kRoleNames), std::end(kRoleNames), name);
  if (found == std::end(kRoleNames)) {
    return Status{Code::kUnknownRole,
                  "the role, of " + std::to_string(name.size()) +
                      " bytes, is none of system, user, assistant, tool; use one of these"};
  }
  return static_cast<Role>(found - std::begin(kRoleNames));
}

}  // namespace csrm
