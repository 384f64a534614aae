// JSON text -> Config or Conversation (csrm/json.h), as strictly as csrm.config and
// csrm.conversation read it in Python: a repeated key, an unknown key of a config, a part that is
// not text are errors, because two readers of one body must not differ about what it says.
#include "csrm/json.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <string>
#include <unordered_set>
#include <utility>

#include "guarded.h"
#include "rapidjson/document.h"
#include "rapidjson/error/error.h"
#include "utf8.h"

namespace csrm {
namespace {

using rapidjson::Value;

constexpr size_t kMaxConfigBytes = size_t{1} << 20;
constexpr size_t kMaxConversationBytes = size_t{16} << 20;

std::string_view text_of(const Value& string) {
  return {string.GetString(), string.GetStringLength()};
}

const char* type_of(const Value& value) {
  if (value.IsNull()) return "null";
  if (value.IsBool()) return "a boolean";
  if (value.IsNumber()) return "a number";
  if (value.IsString()) return "a string";
  return value.IsArray() ? "a list" : "an object";
}

// The member `key` of an object; null if there is none. A JSON null is a member.
const Value* member(const Value& object, const char* key) {
  const auto found = object.FindMember(key);
  return found == object.MemberEnd() ? nullptr : &found->value;
}

// Iterative, so that deep nesting cannot end the stack.
Status parse(std::string_view json, size_t max_bytes, Code bad, rapidjson::Document* document) {
  if (json.size() > max_bytes) {
    return {Code::kLimitExceeded, "the JSON has " + std::to_string(json.size()) +
                                      " bytes; limit is " + std::to_string(max_bytes)};
  }
  if (const size_t offset = find_utf8_error(json); offset != kNoUtf8Error) {
    return {Code::kBadUtf8, "the JSON is not UTF-8 at byte " + std::to_string(offset)};
  }
  if (const size_t offset = json.find('\0'); offset != json.npos) {  // RapidJSON would end there
    return {bad, "not valid JSON at byte " + std::to_string(offset)};
  }
  const size_t bom = json.substr(0, 3) == "\xEF\xBB\xBF" ? 3 : 0;
  constexpr unsigned kFlags = rapidjson::kParseIterativeFlag | rapidjson::kParseFullPrecisionFlag;
  document->Parse<kFlags>(json.data() + bom, json.size() - bom);
  if (!document->HasParseError()) return Status::success();
  const std::string place = " at byte " + std::to_string(document->GetErrorOffset() + bom);
  if (document->GetParseError() == rapidjson::kParseErrorStringUnicodeSurrogateInvalid) {
    return {Code::kBadUtf8, "a lone surrogate" + place + " has no UTF-8 form"};
  }
  return {bad, "not valid JSON" + place};
}

Status refuse_repeated_keys(const Value& object, const std::string& what, Code bad) {
  std::unordered_set<std::string_view> seen;
  for (auto it = object.MemberBegin(); it != object.MemberEnd(); ++it) {
    if (!seen.insert(text_of(it->name)).second) return {bad, what + " has a duplicate key"};
  }
  return Status::success();
}

// That `value` is an object whose keys are distinct and among `known`.
Status check_config_object(const Value& value, const std::string& what,
                           std::initializer_list<std::string_view> known) {
  if (!value.IsObject()) {
    return {Code::kBadConfig, what + " is " + type_of(value) + "; it must be an object"};
  }
  for (auto it = value.MemberBegin(); it != value.MemberEnd(); ++it) {
    if (std::find(known.begin(), known.end(), text_of(it->name)) == known.end()) {
      std::string message = "unknown key in " + what + "; the keys are";
      for (std::string_view key : known) message.append(" ").append(key);
      return {Code::kBadConfig, std::move(message)};
    }
  }
  return refuse_repeated_keys(value, what, Code::kBadConfig);
}

Status check_string(const Value& value, const std::string& what) {
  if (value.IsString()) return Status::success();
  return {Code::kBadConfig, what + " is " + type_of(value) + "; it must be a string"};
}

// What str.strip() of Python takes away.
bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

std::string_view strip(std::string_view text) {
  const char* const end = text.data() + text.size();
  const char* first = end;     // of the first character that is not space
  const char* last_end = end;  // behind the last one
  for (const char* cursor = text.data(); cursor < end;) {
    const char* const start = cursor;
    if (is_space(decode_utf8(&cursor))) continue;
    if (first == end) first = start;
    last_end = cursor;
  }
  return first == end ? std::string_view() : std::string_view(first, last_end - first);
}

Status check_choice(const Value& rule, const char* key,
                    std::initializer_list<std::string_view> choices, const std::string& what) {
  const Value* value = member(rule, key);
  if (value == nullptr || value->GetStringLength() == 0) return Status::success();
  if (std::find(choices.begin(), choices.end(), text_of(*value)) != choices.end()) {
    return Status::success();
  }
  std::string message = std::string(key) + " of " + what + " must be one of:";
  for (std::string_view choice : choices) message.append(" ").append(choice);
  return {Code::kBadConfig, std::move(message)};
}

Result<Rule> read_rule(const Value& value, const std::string& what) {
  Rule rule;
  const Value* text = &value;
  if (!value.IsString()) {
    Status bad = check_config_object(value, what, {"name", "text", "owner", "severity", "action"});
    if (!bad.ok()) return bad;
    for (auto it = value.MemberBegin(); it != value.MemberEnd(); ++it) {
      bad = check_string(it->value, std::string(text_of(it->name)) + " of " + what);
      if (!bad.ok()) return bad;
    }
    bad = check_choice(value, "severity", {"low", "medium", "high", "critical"}, what);
    if (bad.ok()) bad = check_choice(value, "action", {"block", "monitor"}, what);
    if (!bad.ok()) return bad;
    if (const Value* name = member(value, "name")) rule.name = text_of(*name);
    text = member(value, "text");
  }
  if (text != nullptr) rule.text = strip(text_of(*text));
  if (rule.text.empty()) {
    return {Code::kBadConfig, what + " has no text; write what it forbids or allows"};
  }
  return rule;
}

Status read_rules(const Value& root, Config* config) {
  const Value* rules = member(root, "rules");
  if (rules == nullptr || !rules->IsArray()) {
    return {Code::kBadConfig, "the config must have a list of rules under the key rules"};
  }
  if (rules->Empty()) return {Code::kEmptyConfig, "the config has no rules; state at least one"};
  config->rules.reserve(rules->Size());
  for (const Value& item : rules->GetArray()) {
    auto rule = read_rule(item, "rule " + std::to_string(config->rules.size() + 1));
    if (!rule.ok()) return rule.status();
    config->rules.push_back(std::move(rule).value());
  }
  return Status::success();
}

Result<Config> read_config(const Value& root) {
  Status bad = check_config_object(root, "the config",
                                   {"id", "version", "threshold", "description", "rules"});
  if (!bad.ok()) return bad;
  Config config;
  if (bad = read_rules(root, &config); !bad.ok()) return bad;
  for (const char* key : {"id", "version", "description"}) {
    if (const Value* value = member(root, key)) {
      if (bad = check_string(*value, key); !bad.ok()) return bad;
    }
  }
  if (const Value* threshold = member(root, "threshold")) {
    const double value = threshold->IsNumber() ? threshold->GetDouble() : NAN;
    if (!(value >= 0.0 && value <= 1.0)) {
      return {Code::kBadConfig, "threshold must be a number in [0, 1]"};
    }
    config.threshold = value;
  }
  return config;
}

Status bad_conversation(std::string message) {
  return {Code::kBadConversation, std::move(message)};
}

Result<Role> read_role(const Value& message, const std::string& what) {
  struct Name {
    std::string_view name;
    Role role;
  };
  static constexpr std::array<Name, 6> kNames = {{{"system", Role::kSystem},
                                                  {"developer", Role::kSystem},
                                                  {"user", Role::kUser},
                                                  {"assistant", Role::kAssistant},
                                                  {"tool", Role::kTool},
                                                  {"function", Role::kTool}}};
  const Value* role = member(message, "role");
  if (role == nullptr || !role->IsString()) {
    return bad_conversation("the role of " + what + " is missing or not a string");
  }
  for (const Name& known : kNames) {
    if (known.name == text_of(*role)) return known.role;
  }
  return {Code::kUnknownRole, "the role of " + what +
                                  " is unknown; give system (developer), user, assistant or tool "
                                  "(function), in lower case"};
}

Result<std::string> read_parts(const Value& parts, const std::string& what) {
  std::string content;
  for (rapidjson::SizeType i = 0; i < parts.Size(); ++i) {
    const Value& part = parts[i];
    const std::string name = "part " + std::to_string(i + 1) + " of " + what;
    if (!part.IsObject()) return bad_conversation(name + " is " + type_of(part));
    Status bad = refuse_repeated_keys(part, name, Code::kBadConversation);
    if (!bad.ok()) return bad;
    const Value* type = member(part, "type");
    if (type == nullptr || !type->IsString() || text_of(*type) != "text") {
      return bad_conversation(name +
                              " is not of type text; convert images, audio and files to text, or "
                              "judge them elsewhere");
    }
    const Value* text = member(part, "text");
    if (text == nullptr || !text->IsString()) {
      return bad_conversation("the text of " + name + " is missing or not a string");
    }
    if (i > 0) content += '\n';
    content.append(text_of(*text));
  }
  return content;
}

// As Python has it.
bool is_truthy(const Value& value) {
  if (value.IsBool()) return value.GetBool();
  if (value.IsNumber()) return value.GetDouble() != 0.0;
  if (value.IsString()) return value.GetStringLength() > 0;
  if (value.IsArray()) return !value.Empty();
  return value.IsObject() && !value.ObjectEmpty();
}

Result<std::string> read_content(const Value& message, const std::string& what) {
  const Value* content = member(message, "content");
  if (content == nullptr || content->IsNull()) {
    const Value* calls = member(message, "tool_calls");
    if (calls != nullptr && is_truthy(*calls)) return std::string();
    return bad_conversation(what + " has no content; give a string or a list of text parts");
  }
  if (content->IsString()) return std::string(text_of(*content));
  if (content->IsArray()) return read_parts(*content, what);
  return bad_conversation("the content of " + what + " is " + type_of(*content) +
                          "; it must be a string or a list of text parts");
}

Result<const Value*> find_messages(const Value& root) {
  if (root.IsArray()) return &root;
  if (!root.IsObject()) {
    return bad_conversation(std::string("the conversation is ") + type_of(root) +
                            "; it must be an object with messages, or their list");
  }
  Status bad = refuse_repeated_keys(root, "the conversation", Code::kBadConversation);
  if (!bad.ok()) return bad;
  const Value* messages = member(root, "messages");
  const Value* conversation = member(root, "conversation");
  if ((messages == nullptr) == (conversation == nullptr)) {
    return bad_conversation("give either messages or conversation");
  }
  if (messages == nullptr) messages = conversation;
  if (messages->IsArray()) return messages;
  return bad_conversation(std::string("the messages are ") + type_of(*messages) +
                          "; they must be a list");
}

Result<Conversation> read_conversation(const Value& root) {
  const Result<const Value*> messages = find_messages(root);
  if (!messages.ok()) return messages.status();
  if (messages.value()->Empty()) {
    return {Code::kEmptyConversation, "the conversation has no messages; give at least one"};
  }
  Conversation conversation;
  conversation.reserve(messages.value()->Size());
  for (const Value& message : messages.value()->GetArray()) {
    const std::string what = "message " + std::to_string(conversation.size() + 1);
    if (!message.IsObject()) return bad_conversation(what + " is " + type_of(message));
    Status bad = refuse_repeated_keys(message, what, Code::kBadConversation);
    if (!bad.ok()) return bad;
    const Result<Role> role = read_role(message, what);
    if (!role.ok()) return role.status();
    auto content = read_content(message, what);
    if (!content.ok()) return content.status();
    conversation.push_back({role.value(), std::move(content).value()});
  }
  return conversation;
}

}  // namespace

Result<Config> parse_config_json(std::string_view json) noexcept {
  return guarded<Result<Config>>([&]() -> Result<Config> {
    rapidjson::Document document;
    if (Status bad = parse(json, kMaxConfigBytes, Code::kBadConfig, &document); !bad.ok()) {
      return bad;
    }
    return read_config(document);
  });
}

Result<Conversation> parse_conversation_json(std::string_view json) noexcept {
  return guarded<Result<Conversation>>([&]() -> Result<Conversation> {
    rapidjson::Document document;
    Status bad = parse(json, kMaxConversationBytes, Code::kBadConversation, &document);
    if (!bad.ok()) return bad;
    return read_conversation(document);
  });
}

}  // namespace csrm
