// `_core.ChatRenderer`: the tokenizer and the causal renderer for Python, which training calls.
// Not: the block layout (bind_text.cc) or scoring, which renders in C++ (scorer.cc). Takes str or
// UTF-8 bytes, gives int32 arrays; works without the GIL. Thread-safe.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <limits>
#include <map>
#include <string>
#include <utility>

#include "bind_status.h"
#include "bind_text.h"
#include "conversation_rows.h"
#include "layout.h"
#include "tokenizer.h"

namespace py = pybind11;

namespace csrm {
namespace {

using Pair = std::pair<py::object, py::object>;

py::array_t<int32_t> ids_of(const Block* blocks, size_t n_blocks) {
  std::vector<int32_t> ids;
  for (size_t b = 0; b < n_blocks; ++b) {
    ids.insert(ids.end(), blocks[b].ids.begin(), blocks[b].ids.end());
  }
  return py::array_t<int32_t>(static_cast<py::ssize_t>(ids.size()), ids.data());
}

Limits no_limits() {
  constexpr size_t kMost = std::numeric_limits<size_t>::max();
  Limits limits;
  limits.max_text_bytes = limits.max_turns = limits.max_conversation_tokens = kMost;
  return limits;
}

class ChatRenderer {
 public:
  ChatRenderer(Tokenizer tokenizer, Layout layout)
      : tokenizer_(std::move(tokenizer)), layout_(std::move(layout)) {}

  py::array_t<int32_t> encode(const py::object& text) const {
    const std::string_view utf8 = utf8_of(text);
    Block block{};
    run_without_gil([&] { return tokenizer_.encode(utf8, &block.ids); });
    return ids_of(&block, 1);
  }

  py::array_t<int32_t> config(const std::vector<Pair>& rules) const {
    std::vector<Rule> texts;
    for (const auto& [name, text] : rules) {
      texts.push_back({std::string(utf8_of(name)), std::string(utf8_of(text))});
    }
    std::vector<Block> blocks;
    run_without_gil([&] { return render_chat_config(tokenizer_, layout_.chat, texts, &blocks); });
    return ids_of(blocks.data(), blocks.size());
  }

  py::list conversation(const std::vector<Pair>& turns, const std::string& judged) const {
    Conversation texts;
    for (const auto& [role, content] : turns) {
      texts.push_back(
          {value_or_raise(role_from_name(utf8_of(role))), std::string(utf8_of(content))});
    }
    if (judged != "last" && judged != "assistant") {
      raise_status({Code::kBadArgument, "judged is unknown; give \"last\" or \"assistant\""});
    }
    const Judged which = judged == "last" ? Judged::kLast : Judged::kAssistant;
    ConversationBlocks rendered;
    run_without_gil([&] {
      auto result = render_conversation(tokenizer_, layout_, texts, which, no_limits());
      if (!result.ok()) return result.status();
      rendered = std::move(result).value();
      return Status::success();
    });
    py::list rows;
    for (const Row& row : cut_rows(rendered, std::numeric_limits<size_t>::max())) {
      rows.append(py::make_tuple(ids_of(row.blocks, row.n_blocks), row.n_cue_tokens));
    }
    return rows;
  }

 private:
  Tokenizer tokenizer_;
  Layout layout_;
};

ChatRenderer make_chat_renderer(const py::bytes& tokenizer_json, const Pieces& config_head,
                                const Pieces& config_end,
                                const std::map<std::string, Pieces>& roles, const Pieces& turn_end,
                                const Pieces& cue, int32_t max_block_tokens) {
  Tokenizer tokenizer = value_or_raise(Tokenizer::from_json(utf8_of(tokenizer_json)));
  ChatPieces pieces{config_head, config_end, turn_end, cue, {}, max_block_tokens};
  for (const auto& [name, head] : roles) {
    pieces.roles[static_cast<size_t>(value_or_raise(role_from_name(name)))] = head;
  }
  Layout layout;
  layout.is_causal = true;
  layout.chat = value_or_raise(resolve_chat(pieces, tokenizer));
  return {std::move(tokenizer), std::move(layout)};
}

}  // namespace

void bind_chat(py::module_& m) {
  py::class_<ChatRenderer>(
      m, "ChatRenderer",
      "Text -> one causal sequence of token ids, exactly as the scorer sees it.\n\n"
      "The keyword arguments are the manifest's \"template\" of a decoder without its id: lists of "
      "control ids and texts. Texts are str or UTF-8 bytes. Thread-safe. Errors: BadArtifact and "
      "Unsupported (tokenizer_json), BadArgument and UnknownRole (template), BadUtf8 (texts).")
      .def(py::init(&make_chat_renderer), py::arg("tokenizer_json"), py::kw_only(),
           py::arg("config_head"), py::arg("config_end"), py::arg("roles"), py::arg("turn_end"),
           py::arg("cue"), py::arg("max_block_tokens"))
      .def("encode", &ChatRenderer::encode, py::arg("text"),
           "Token ids of `text`, int32 [n]; never a control id. Errors: BadUtf8.")
      .def("config", &ChatRenderer::config, py::arg("rules"),
           "Ids int32 [n] of a config of (name, text) rules. Errors: BadUtf8; EmptyConfig when a "
           "rule is blank.")
      .def(
          "conversation", &ChatRenderer::conversation, py::arg("turns"), py::arg("judged") = "last",
          "Rows [(ids int32 [n], n_cue), ...] of a conversation of (role, content) turns, one per "
          "judged turn and each after the last without its cue: the reward is read at a row's last "
          "token. Errors: BadUtf8, UnknownRole, EmptyConversation.");
}

}  // namespace csrm
