// Reading the parts that every kind of tokenizer.json has, and the wording of its errors.
// Not: parsing JSON (tokenizer.cc) or what the parts mean (wordpiece.cc, bpe_json.cc).
#ifndef CSRM_SRC_TOKENIZER_JSON_H_
#define CSRM_SRC_TOKENIZER_JSON_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "csrm/status.h"
#include "rapidjson/document.h"

namespace csrm {

// A token as the file spells it, in the memory of the document it was read from.
struct VocabEntry {
  std::string_view text;
  int32_t id;
};

// BadArtifact and Unsupported, naming the file.
Status bad_tokenizer(const std::string& message);
Status unsupported_tokenizer(const std::string& message);

std::string_view text_of(const rapidjson::Value& string);

// The member `key` of an object; null if there is none or it is a JSON null.
const rapidjson::Value* find_member(const rapidjson::Value& object, const char* key);

// The object `key` of `parent` and its "type". Errors: BadArtifact.
struct TypedObject {
  const rapidjson::Value* object;
  std::string_view type;
};
Result<TypedObject> typed_object(const rapidjson::Value& parent, const char* key);

// As above if the type is `type`. Errors: also Unsupported.
Result<const rapidjson::Value*> typed_object(const rapidjson::Value& parent, const char* key,
                                             std::string_view type);

// The entries of "vocab" in the order of the file. Errors: BadArtifact (no object, an id outside
// 0 to 2147483646, an empty token, no token at all).
Result<std::vector<VocabEntry>> read_vocab(const rapidjson::Value& model);

}  // namespace csrm

#endif  // CSRM_SRC_TOKENIZER_JSON_H_
