// The reader of bpe_json.h.
#include "bpe_json.h"

#include <algorithm>
#include <limits>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "bpe_words.h"

namespace csrm {
namespace {

using rapidjson::Value;
using IdByText = std::unordered_map<std::string_view, int32_t>;

// The boolean `key` of `object`; `otherwise` if it is missing or null.
Result<bool> read_flag(const Value& object, const std::string& where, const char* key,
                       bool otherwise) {
  const Value* flag = find_member(object, key);
  if (flag == nullptr) return otherwise;
  if (!flag->IsBool()) return bad_tokenizer(where + "." + key + " must be a boolean");
  return flag->GetBool();
}

// Fails unless the boolean `key` is `wanted`.
Status require_flag(const Value& object, const std::string& where, const char* key, bool otherwise,
                    bool wanted) {
  const Result<bool> flag = read_flag(object, where, key, otherwise);
  if (!flag.ok()) return flag.status();
  if (flag.value() == wanted) return Status::success();
  return unsupported_tokenizer(where + "." + key + " must be " + (wanted ? "true" : "false") +
                               " for this build");
}

bool has_type(const Value& object, std::string_view type) {
  if (!object.IsObject()) return false;
  const Value* stated = find_member(object, "type");
  return stated != nullptr && stated->IsString() && text_of(*stated) == type;
}

Result<bool> read_normaliser(const Value& document) {
  if (find_member(document, "normalizer") == nullptr) return false;
  const Result<const Value*> normaliser = typed_object(document, "normalizer", "NFC");
  if (!normaliser.ok()) return normaliser.status();
  return true;
}

constexpr char kPreTokenizer[] = "pre_tokenizer";

Status check_byte_level(const Value& byte_level, bool uses_pattern) {
  Status status = require_flag(byte_level, kPreTokenizer, "add_prefix_space", true, false);
  if (status.ok()) {
    status = require_flag(byte_level, kPreTokenizer, "use_regex", true, uses_pattern);
  }
  return status;
}

Result<SplitStyle> read_split(const Value& split) {
  const Value* behavior = find_member(split, "behavior");
  if (behavior == nullptr || !behavior->IsString()) {
    return bad_tokenizer("pre_tokenizer.behavior must be a string");
  }
  if (text_of(*behavior) != "Isolated") {
    return unsupported_tokenizer("pre_tokenizer.behavior must be Isolated for this build");
  }
  const Status status = require_flag(split, kPreTokenizer, "invert", false, false);
  if (!status.ok()) return status;
  const Value* pattern = find_member(split, "pattern");
  if (pattern == nullptr || !pattern->IsObject()) {
    return bad_tokenizer("pre_tokenizer.pattern must be an object");
  }
  const Value* regex = find_member(*pattern, "Regex");
  const auto style = regex != nullptr && regex->IsString() ? split_style_of(text_of(*regex))
                                                           : std::optional<SplitStyle>();
  if (style.has_value()) return *style;
  return unsupported_tokenizer(
      "pre_tokenizer.pattern is not the one of Qwen2 or Llama 3, which alone this build can run");
}

// The one of the known forms that "pre_tokenizer" has.
Result<SplitStyle> read_pre_tokenizer(const Value& document) {
  const Result<TypedObject> found = typed_object(document, kPreTokenizer);
  if (!found.ok()) return found.status();
  const Value& object = *found.value().object;
  if (found.value().type == "ByteLevel") {
    const Status status = check_byte_level(object, true);
    if (!status.ok()) return status;
    return SplitStyle::kGpt2;
  }
  if (found.value().type == "Sequence") {
    const Value* parts = find_member(object, "pretokenizers");
    if (parts == nullptr || !parts->IsArray()) {
      return bad_tokenizer("pre_tokenizer.pretokenizers must be an array");
    }
    if (parts->Size() == 2 && has_type((*parts)[1], "ByteLevel")) {
      const Value& first = (*parts)[0];
      const bool is_split = has_type(first, "Split");
      if (is_split || has_type(first, "Digits")) {
        Status status = check_byte_level((*parts)[1], !is_split);
        if (status.ok() && !is_split) {
          status = require_flag(first, kPreTokenizer, "individual_digits", false, true);
        }
        if (!status.ok()) return status;
        return is_split ? read_split(first) : SplitStyle::kDigitsGpt2;
      }
    }
  }
  return unsupported_tokenizer(
      "\"pre_tokenizer\" is none that this build can run: ByteLevel, or a Sequence of Digits or "
      "Split and ByteLevel");
}

bool spells_every_byte(const std::vector<VocabEntry>& vocab) {
  std::string bytes;
  return 256 == std::count_if(vocab.begin(), vocab.end(), [&](const VocabEntry& entry) {
           return spell_bytes(entry.text, &bytes) && bytes.size() == 1;
         });
}

// Fails on an option of the model that would change what a text becomes.
Status check_model_options(const Value& model, const std::vector<VocabEntry>& vocab) {
  if (find_member(model, "dropout") != nullptr) {
    return unsupported_tokenizer("model.dropout must be null for this build");
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const Value* affix = find_member(model, key);
    if (affix == nullptr) continue;
    if (!affix->IsString()) return bad_tokenizer(std::string("model.") + key + " must be a string");
    if (affix->GetStringLength() != 0) {
      return unsupported_tokenizer(std::string("model.") + key + " must be empty for this build");
    }
  }
  const Value* unknown = find_member(model, "unk_token");
  if (unknown != nullptr && !unknown->IsString()) {
    return bad_tokenizer("model.unk_token must be a string");
  }
  if (unknown != nullptr && !spells_every_byte(vocab)) {  // else no text can reach it
    return unsupported_tokenizer("model.unk_token with a vocabulary that lacks single bytes");
  }
  return require_flag(model, "model", "byte_fallback", false, false);
}

// Maps the texts of `vocab`. Errors: BadArtifact for a text or an id that stands twice.
Result<IdByText> index_vocab(const std::vector<VocabEntry>& vocab) {
  IdByText ids;
  std::unordered_set<int32_t> seen;
  ids.reserve(vocab.size());
  seen.reserve(vocab.size());
  for (size_t i = 0; i < vocab.size(); ++i) {
    if (!ids.emplace(vocab[i].text, vocab[i].id).second) {
      return bad_tokenizer("model.vocab entry " + std::to_string(i) + " is a duplicate token");
    }
    if (!seen.insert(vocab[i].id).second) {
      return bad_tokenizer("model.vocab entry " + std::to_string(i) + " has a duplicate id");
    }
  }
  return ids;
}

// The two tokens of a merge: ["a", "b"], or "a b" in older files. False if it is neither.
bool split_merge(const Value& merge, std::string_view* left, std::string_view* right) {
  if (merge.IsArray()) {
    if (merge.Size() != 2 || !merge[0].IsString() || !merge[1].IsString()) return false;
    *left = text_of(merge[0]);
    *right = text_of(merge[1]);
    return true;
  }
  if (!merge.IsString()) return false;
  const std::string_view both = text_of(merge);
  const size_t space = both.find(' ');
  if (space == std::string_view::npos) return false;
  *left = both.substr(0, space);
  *right = both.substr(space + 1);
  return right->find(' ') == std::string_view::npos;
}

Result<std::vector<BpeMerge>> read_merges(const Value& model, const IdByText& ids) {
  const Value* listed = find_member(model, "merges");
  if (listed == nullptr || !listed->IsArray()) {
    return bad_tokenizer("model.merges must be an array");
  }
  std::vector<BpeMerge> merges;
  merges.reserve(listed->Size());
  for (const Value& merge : listed->GetArray()) {
    const std::string where = "model.merges entry " + std::to_string(merges.size());
    std::string_view left, right;
    if (!split_merge(merge, &left, &right)) return bad_tokenizer(where + " must be two tokens");
    const auto left_id = ids.find(left), right_id = ids.find(right);
    if (left_id == ids.end() || right_id == ids.end()) {
      return bad_tokenizer(where + " holds a token that model.vocab does not");
    }
    const auto merged = ids.find(std::string(left).append(right));
    if (merged == ids.end()) {
      return bad_tokenizer(where + " makes a token that model.vocab does not hold");
    }
    merges.push_back({left_id->second, right_id->second, merged->second});
  }
  return merges;
}

Result<std::vector<VocabEntry>> read_added(const Value& document, const IdByText& ids) {
  std::vector<VocabEntry> added;
  const Value* listed = find_member(document, "added_tokens");
  if (listed == nullptr) return added;
  if (!listed->IsArray()) return bad_tokenizer("added_tokens must be an array");
  for (const Value& token : listed->GetArray()) {
    const std::string where = "added_tokens entry " + std::to_string(added.size());
    const Value* content = token.IsObject() ? find_member(token, "content") : nullptr;
    const Value* id = token.IsObject() ? find_member(token, "id") : nullptr;
    if (content == nullptr || !content->IsString() || id == nullptr || !id->IsInt() ||
        id->GetInt() < 0 || id->GetInt() == std::numeric_limits<int32_t>::max()) {
      return bad_tokenizer(where + " must have a content and an id of 0 to 2147483646");
    }
    const auto known = ids.find(text_of(*content));
    if (known != ids.end() && known->second != id->GetInt()) {
      return bad_tokenizer(where + " has another id in model.vocab");
    }
    added.push_back({text_of(*content), id->GetInt()});
  }
  return added;
}

}  // namespace

Result<BpeFile> read_bpe_file(const Value& document) {
  const Result<bool> normalises_nfc = read_normaliser(document);
  if (!normalises_nfc.ok()) return normalises_nfc.status();
  const Result<SplitStyle> split = read_pre_tokenizer(document);
  if (!split.ok()) return split.status();
  const Result<const Value*> model = typed_object(document, "model", "BPE");
  if (!model.ok()) return model.status();
  const Result<bool> ignores_merges = read_flag(*model.value(), "model", "ignore_merges", false);
  if (!ignores_merges.ok()) return ignores_merges.status();
  Result<std::vector<VocabEntry>> vocab = read_vocab(*model.value());
  if (!vocab.ok()) return vocab.status();
  const Status options = check_model_options(*model.value(), vocab.value());
  if (!options.ok()) return options;
  const Result<IdByText> ids = index_vocab(vocab.value());
  if (!ids.ok()) return ids.status();
  Result<std::vector<BpeMerge>> merges = read_merges(*model.value(), ids.value());
  if (!merges.ok()) return merges.status();
  Result<std::vector<VocabEntry>> added = read_added(document, ids.value());
  if (!added.ok()) return added.status();
  return BpeFile{split.value(),
                 normalises_nfc.value(),
                 ignores_merges.value(),
                 std::move(vocab).value(),
                 std::move(merges).value(),
                 std::move(added).value()};
}

}  // namespace csrm
