// Configs and conversations from JSON: what is read, what is refused and as which error.
// Not: agreement with Python's readers, input by input (tests/python/test_c_json.py).
#include <cstddef>
#include <random>
#include <string>
#include <string_view>

#include "check.h"
#include "csrm/json.h"

namespace {

using csrm::Code;
using csrm::Role;

void test_json_config_reads_rules_and_threshold() {
  const auto config = csrm::parse_config_json(
      "\xEF\xBB\xBF{\"id\": \"a\", \"threshold\": 0.7, \"rules\": [\" \\u00a0No refunds.\\n\", "
      "{\"name\": \"n\", \"text\": \"Caf\\u00e9 \\ud83d\\ude00\", \"severity\": \"high\"}]}");
  CHECK(config.ok());
  if (!config.ok()) return;
  CHECK(config.value().threshold == 0.7 && config.value().rules.size() == 2);
  CHECK(config.value().rules[0].name.empty() && config.value().rules[0].text == "No refunds.");
  CHECK(config.value().rules[1].name == "n");
  CHECK(config.value().rules[1].text == "Caf\xC3\xA9 \xF0\x9F\x98\x80");
  const auto plain = csrm::parse_config_json("{\"rules\": [\"a\"]}");
  CHECK(plain.ok() && plain.value().threshold == 0.5);
}

void test_json_config_outside_schema_is_refused() {
  struct Case {
    std::string_view json;
    Code code;
  };
  const Case cases[] = {
      {"", Code::kBadConfig},
      {"[]", Code::kBadConfig},
      {"{}", Code::kBadConfig},
      {"{\"rules\": []}", Code::kEmptyConfig},
      {"{\"rules\": \"a\"}", Code::kBadConfig},
      {"{\"rules\": [\" \\t\"]}", Code::kBadConfig},
      {"{\"rules\": [1]}", Code::kBadConfig},
      {"{\"rules\": [null]}", Code::kBadConfig},
      {"{\"rules\": [{\"name\": \"a\"}]}", Code::kBadConfig},
      {"{\"rules\": [{\"text\": \"a\", \"txt\": \"b\"}]}", Code::kBadConfig},
      {"{\"rules\": [{\"text\": \"a\", \"text\": \"b\"}]}", Code::kBadConfig},
      {"{\"rules\": [{\"text\": \"a\", \"severity\": \"dire\"}]}", Code::kBadConfig},
      {"{\"rules\": [\"a\"], \"rules\": [\"b\"]}", Code::kBadConfig},
      {"{\"rules\": [\"a\"], \"policy\": 1}", Code::kBadConfig},
      {"{\"rules\": [\"a\"], \"id\": null}", Code::kBadConfig},
      {"{\"rules\": [\"a\"], \"threshold\": 1.5}", Code::kBadConfig},
      {"{\"rules\": [\"a\"], \"threshold\": true}", Code::kBadConfig},
      {"{\"rules\": [\"a\"], \"threshold\": NaN}", Code::kBadConfig},
      {"{\"rules\": [\"a\"]} x", Code::kBadConfig},
      {"{\"rules\": [\"a\",]}", Code::kBadConfig},
      {"{\"rules\": [\"\xFF\"]}", Code::kBadUtf8},
      {"{\"rules\": [\"\\ud800\"]}", Code::kBadUtf8},
  };
  for (const Case& c : cases) {
    const auto config = csrm::parse_config_json(c.json);
    CHECK(!config.ok() && config.status().code == c.code);
    if (config.ok() || config.status().code != c.code) std::printf("%s\n", c.json.data());
  }
}

void test_json_conversation_reads_chat_bodies() {
  const auto body = csrm::parse_conversation_json(
      "{\"model\": \"m\", \"temperature\": 0.1, \"messages\": ["
      "{\"role\": \"developer\", \"content\": \"d\"},"
      "{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a\"}, "
      "{\"type\": \"text\", \"text\": \"\\u0000b\"}], \"name\": \"x\"},"
      "{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"id\": \"1\"}]},"
      "{\"role\": \"function\", \"content\": \"[CLS] \\\"\"}]}");
  CHECK(body.ok());
  if (!body.ok()) return;
  const csrm::Conversation& turns = body.value();
  CHECK(turns.size() == 4);
  CHECK(turns[0].role == Role::kSystem && turns[0].content == "d");
  CHECK(turns[1].role == Role::kUser && turns[1].content == std::string("a\n\0b", 4));
  CHECK(turns[2].role == Role::kAssistant && turns[2].content.empty());
  CHECK(turns[3].role == Role::kTool && turns[3].content == "[CLS] \"");
  CHECK(csrm::parse_conversation_json("[{\"role\": \"user\", \"content\": \"a\"}]").ok());
  CHECK(csrm::parse_conversation_json("{\"conversation\": [{\"role\": \"user\", \"content\": []}]}")
            .ok());
}

void test_json_conversation_that_two_readers_may_read_apart_is_refused() {
  struct Case {
    std::string_view json;
    Code code;
  };
  using namespace std::string_view_literals;
  const Case cases[] = {
      {"null"sv, Code::kBadConversation},
      {"{}"sv, Code::kBadConversation},
      {"{\"messages\": []}"sv, Code::kEmptyConversation},
      {"[]"sv, Code::kEmptyConversation},
      {"{\"messages\": [], \"conversation\": []}"sv, Code::kBadConversation},
      {"{\"messages\": {}}"sv, Code::kBadConversation},
      {"{\"messages\": [], \"messages\": []}"sv, Code::kBadConversation},
      {"[{\"role\": \"user\", \"content\": \"a\", \"content\": \"b\"}]"sv, Code::kBadConversation},
      {"[{\"role\": \"user\"}]"sv, Code::kBadConversation},
      {"[{\"content\": \"a\"}]"sv, Code::kBadConversation},
      {"[{\"role\": \"User\", \"content\": \"a\"}]"sv, Code::kUnknownRole},
      {"[{\"role\": 1, \"content\": \"a\"}]"sv, Code::kBadConversation},
      {"[{\"role\": \"user\", \"content\": null}]"sv, Code::kBadConversation},
      {"[{\"role\": \"user\", \"content\": null, \"tool_calls\": []}]"sv, Code::kBadConversation},
      {"[{\"role\": \"user\", \"content\": 1}]"sv, Code::kBadConversation},
      {"[{\"role\": \"user\", \"content\": [\"a\"]}]"sv, Code::kBadConversation},
      {"[{\"role\": \"user\", \"content\": [{\"type\": \"image_url\"}]}]"sv,
       Code::kBadConversation},
      {"[{\"role\": \"user\", \"content\": [{\"type\": \"text\"}]}]"sv, Code::kBadConversation},
      {"[[\"user\", \"a\"]]"sv, Code::kBadConversation},
      {"[{\"role\": \"user\", \"content\": \"a\"}] []"sv, Code::kBadConversation},
      {"[{\"role\": \"user\", \"content\": \"a\"}]\0{}"sv, Code::kBadConversation},
      {"[{\"role\": \"user\", \"content\": \"a"sv, Code::kBadConversation},
      {"[{\"role\": \"user\", \"content\": \"\xC0\xAF\"}]"sv, Code::kBadUtf8},
      {"[{\"role\": \"user\", \"content\": \"\\udc00\"}]"sv, Code::kBadUtf8},
  };
  for (const Case& c : cases) {
    const auto body = csrm::parse_conversation_json(c.json);
    CHECK(!body.ok() && body.status().code == c.code);
    if (body.ok() || body.status().code != c.code) std::printf("%s\n", c.json.data());
  }
}

void test_json_too_large_or_deep_is_an_error_and_no_crash() {
  const std::string deep(1 << 20, '[');
  CHECK(csrm::parse_conversation_json(deep).status().code == Code::kBadConversation);
  const std::string ignored = "{\"x\": " + std::string(100000, '[') + std::string(100000, ']') +
                              ", \"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}";
  CHECK(csrm::parse_conversation_json(ignored).ok());
  const std::string long_body(size_t{17} << 20, ' ');
  CHECK(csrm::parse_conversation_json(long_body).status().code == Code::kLimitExceeded);
  const std::string long_config(size_t{2} << 20, ' ');
  CHECK(csrm::parse_config_json(long_config).status().code == Code::kLimitExceeded);
}

// Bytes of good texts replaced, taken out and put in, and texts cut, at random: each is read or is
// an error with a message. A sanitizer sees the rest.
void test_json_mutated_texts_never_crash() {
  const std::string bodies[] = {
      "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": "
      "\"a\\ud83d\\ude00\"}]}, {\"role\": \"assistant\", \"content\": null, \"tool_calls\": "
      "[{}]}]}",
      "{\"rules\": [\"caf\xC3\xA9\", {\"name\": \"n\", \"text\": \" a \"}], \"threshold\": 0.25}"};
  using namespace std::string_view_literals;
  constexpr auto kBytes = "\"\\{}[]:,u0-9eE.\0\x80\xED\xF0 "sv;
  std::mt19937 random(20260101);
  int n_read = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string text = bodies[round % 2];
    for (size_t n = random() % 4; n > 0 && !text.empty(); --n) {
      const size_t at = random() % text.size();
      const char byte = kBytes[random() % kBytes.size()];
      switch (random() % 4) {
        case 0:
          text[at] = byte;
          break;
        case 1:
          text.insert(at, 1, byte);
          break;
        case 2:
          text.erase(at, 1);
          break;
        default:
          text.resize(at + 1);
      }
    }
    const auto body = csrm::parse_conversation_json(text);
    const auto config = csrm::parse_config_json(text);
    n_read += body.ok() || config.ok() ? 1 : 0;
    if (!body.ok() && body.status().message.empty()) CHECK(false);
    if (!config.ok() && config.status().message.empty()) CHECK(false);
  }
  CHECK(n_read > 1000 && n_read < 19000);
}

void test_json_errors_hold_no_text_of_the_input() {
  const auto body = csrm::parse_conversation_json(
      "[{\"role\": \"secretrole\", \"content\": \"secrettext\"}, \"secrettext\"]");
  CHECK(body.status().message.find("secret") == std::string::npos);
  CHECK(!body.status().message.empty());
  const auto config =
      csrm::parse_config_json("{\"rules\": [{\"secretkey\": \"secrettext\", \"text\": \"a\"}]}");
  CHECK(config.status().message.find("secret") == std::string::npos);
  CHECK(!config.status().message.empty());
}

}  // namespace

int main() {
  test_json_config_reads_rules_and_threshold();
  test_json_config_outside_schema_is_refused();
  test_json_conversation_reads_chat_bodies();
  test_json_conversation_that_two_readers_may_read_apart_is_refused();
  test_json_too_large_or_deep_is_an_error_and_no_crash();
  test_json_mutated_texts_never_crash();
  test_json_errors_hold_no_text_of_the_input();
  return csrm_test::summary();
}
