// The readers of tokenizer_json.h. Messages name fields, never the texts of tokens.
#include "tokenizer_json.h"

#include <limits>

namespace csrm {

Status bad_tokenizer(const std::string& message) {
  return {Code::kBadArtifact, "tokenizer.json: " + message};
}

Status unsupported_tokenizer(const std::string& message) {
  return {Code::kUnsupported, "tokenizer.json: " + message};
}

std::string_view text_of(const rapidjson::Value& string) {
  return {string.GetString(), string.GetStringLength()};
}

const rapidjson::Value* find_member(const rapidjson::Value& object, const char* key) {
  const auto member = object.FindMember(key);
  return member == object.MemberEnd() || member->value.IsNull() ? nullptr : &member->value;
}

Result<TypedObject> typed_object(const rapidjson::Value& parent, const char* key) {
  const rapidjson::Value* object = find_member(parent, key);
  if (object == nullptr || !object->IsObject()) {
    return bad_tokenizer(std::string("\"") + key + "\" must be an object");
  }
  const rapidjson::Value* type = find_member(*object, "type");
  if (type == nullptr || !type->IsString()) {
    return bad_tokenizer(std::string("\"") + key + "\" must state its \"type\" as a string");
  }
  return TypedObject{object, text_of(*type)};
}

Result<const rapidjson::Value*> typed_object(const rapidjson::Value& parent, const char* key,
                                             std::string_view type) {
  const Result<TypedObject> found = typed_object(parent, key);
  if (!found.ok()) return found.status();
  if (found.value().type != type) {
    return unsupported_tokenizer(std::string("\"") + key + "\" is of another type than " +
                                 std::string(type) + ", the only one this build can run here");
  }
  return found.value().object;
}

Result<std::vector<VocabEntry>> read_vocab(const rapidjson::Value& model) {
  const rapidjson::Value* vocab = find_member(model, "vocab");
  if (vocab == nullptr || !vocab->IsObject()) {
    return bad_tokenizer("model.vocab must be an object from token to id");
  }
  std::vector<VocabEntry> entries;
  entries.reserve(vocab->MemberCount());
  for (auto it = vocab->MemberBegin(); it != vocab->MemberEnd(); ++it) {
    if (!it->value.IsInt() || it->value.GetInt() < 0 ||
        it->value.GetInt() == std::numeric_limits<int32_t>::max()) {
      return bad_tokenizer("model.vocab entry " + std::to_string(entries.size()) +
                           " must have an id of 0 to 2147483646");
    }
    if (it->name.GetStringLength() == 0) return bad_tokenizer("model.vocab holds an empty token");
    entries.push_back({text_of(it->name), it->value.GetInt()});
  }
  if (entries.empty()) return bad_tokenizer("model.vocab holds no token");
  return entries;
}

}  // namespace csrm
