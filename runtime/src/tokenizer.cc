// The tokenizer of tokenizer.h: the parser of tokenizer.json and longest-match-first WordPiece.
// Not: what a word is (normalise.cc). Hugging Face loads the file's "added_tokens" as strings to
// look for in the text; they are ignored here on purpose, so no text can spell a control token.
#include "tokenizer.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "normalise.h"
#include "rapidjson/document.h"
#include "utf8.h"

namespace csrm {
namespace {

using JsonFlags = rapidjson::ParseFlag;
constexpr unsigned kJsonFlags =  // iterative: nesting costs heap, never stack
    JsonFlags::kParseIterativeFlag | JsonFlags::kParseValidateEncodingFlag;

struct VocabEntry {
  std::string_view text;
  int32_t id;
};

// The keys of a set of strings as a tree of bytes. A node's children lie side by side, ordered by
// byte, so a step is one memchr over their labels.
class ByteTrie {
 public:
  struct Match {
    size_t length;  // bytes; 0 if no key is a prefix
    int32_t id;
  };

  // `entries` must be sorted by text, without duplicates and without an empty text.
  explicit ByteTrie(const std::vector<VocabEntry>& entries) {
    // Breadth first: `spans[n]` are the entries below node n, which share its first `depth` bytes.
    struct Span {
      size_t begin, end, depth;
    };
    std::vector<Span> spans{{0, entries.size(), 0}};
    add_node(0);
    for (size_t node = 0; node < spans.size(); ++node) {
      const Span span = spans[node];
      size_t at = span.begin;
      if (at < span.end && entries[at].text.size() == span.depth) {
        nodes_[node].id = entries[at++].id;
      }
      nodes_[node].first_child = static_cast<uint32_t>(nodes_.size());
      while (at < span.end) {
        const char label = entries[at].text[span.depth];
        const size_t begin = at;
        while (at < span.end && entries[at].text[span.depth] == label) ++at;
        add_node(label);
        spans.push_back({begin, at, span.depth + 1});
        ++nodes_[node].n_children;
      }
    }
  }

  // The longest key that `text` starts with.
  Match longest_prefix(std::string_view text) const noexcept {
    Match best{0, kNoId};
    size_t node = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      const Node& parent = nodes_[node];
      if (parent.n_children == 0) break;
      const char* labels = labels_.data() + parent.first_child;
      const void* found = std::memchr(labels, text[i], parent.n_children);
      if (found == nullptr) break;
      node = parent.first_child + static_cast<size_t>(static_cast<const char*>(found) - labels);
      if (nodes_[node].id != kNoId) best = {i + 1, nodes_[node].id};
    }
    return best;
  }

 private:
  static constexpr int32_t kNoId = -1;
  struct Node {
    uint32_t first_child;
    uint32_t n_children;
    int32_t id;  // of the key that ends here
  };

  void add_node(char label) {
    nodes_.push_back({0, 0, kNoId});
    labels_.push_back(label);
  }

  std::vector<Node> nodes_;
  std::string labels_;  // byte that leads to each node
};

// Sorts by text; of entries with one text the last stays, as in a map.
std::vector<VocabEntry> sorted_unique(std::vector<VocabEntry> entries) {
  std::stable_sort(entries.begin(), entries.end(),
                   [](const VocabEntry& a, const VocabEntry& b) { return a.text < b.text; });
  size_t kept = 0;
  for (size_t i = 0; i < entries.size(); ++i) {
    if (i + 1 < entries.size() && entries[i + 1].text == entries[i].text) continue;
    entries[kept++] = entries[i];
  }
  entries.resize(kept);
  return entries;
}

std::vector<VocabEntry> without_prefix(const std::vector<VocabEntry>& entries,
                                       std::string_view prefix) {
  std::vector<VocabEntry> continuing;
  for (const VocabEntry& entry : entries) {
    if (entry.text.size() > prefix.size() && entry.text.substr(0, prefix.size()) == prefix) {
      continuing.push_back({entry.text.substr(prefix.size()), entry.id});
    }
  }
  return continuing;
}

Status bad(std::string message) {
  return {Code::kBadArtifact, "tokenizer.json: " + std::move(message)};
}

// The object `key` of `parent`, whose "type" must be `type`.
Result<const rapidjson::Value*> typed_object(const rapidjson::Value& parent, const char* key,
                                             const char* type) {
  const auto member = parent.FindMember(key);
  if (member == parent.MemberEnd() || !member->value.IsObject()) {
    return bad(std::string("\"") + key + "\" must be an object of type " + type);
  }
  const auto stated = member->value.FindMember("type");
  if (stated == member->value.MemberEnd() || !stated->value.IsString()) {
    return bad(std::string("\"") + key + "\" must state its \"type\" as a string");
  }
  if (std::strcmp(stated->value.GetString(), type) != 0) {
    return Status{Code::kUnsupported, std::string("tokenizer.json: \"") + key +
                                          "\" is of another type than " + type +
                                          ", the only one this build can run"};
  }
  return &member->value;
}

// Reads the boolean `key`; null keeps `*value`.
Status read_bool(const rapidjson::Value& object, const char* key, bool nullable, bool* value) {
  const auto member = object.FindMember(key);
  const bool is_null = member != object.MemberEnd() && member->value.IsNull();
  if (is_null && nullable) return Status::success();
  if (member == object.MemberEnd() || !member->value.IsBool()) {
    return bad(std::string("normalizer.") + key + " must be a boolean");
  }
  *value = member->value.GetBool();
  return Status::success();
}

Result<NormaliserOptions> read_normaliser(const rapidjson::Value& object) {
  NormaliserOptions options;
  Status status = read_bool(object, "clean_text", false, &options.clean_text);
  if (status.ok()) {
    status = read_bool(object, "handle_chinese_chars", false, &options.handle_chinese_chars);
  }
  if (status.ok()) status = read_bool(object, "lowercase", false, &options.lowercase);
  options.strip_accents = options.lowercase;
  if (status.ok()) status = read_bool(object, "strip_accents", true, &options.strip_accents);
  if (!status.ok()) return status;
  return options;
}

Result<std::string_view> read_string(const rapidjson::Value& model, const char* key) {
  const auto member = model.FindMember(key);
  if (member == model.MemberEnd() || !member->value.IsString()) {
    return bad(std::string("model.") + key + " must be a string");
  }
  return std::string_view(member->value.GetString(), member->value.GetStringLength());
}

// Sorted entries whose texts lie in the document that `model` belongs to.
Result<std::vector<VocabEntry>> read_vocab(const rapidjson::Value& model) {
  const auto vocab = model.FindMember("vocab");
  if (vocab == model.MemberEnd() || !vocab->value.IsObject()) {
    return bad("model.vocab must be an object from token to id");
  }
  std::vector<VocabEntry> entries;
  entries.reserve(vocab->value.MemberCount());
  for (auto it = vocab->value.MemberBegin(); it != vocab->value.MemberEnd(); ++it) {
    if (!it->value.IsInt() || it->value.GetInt() < 0 ||
        it->value.GetInt() == std::numeric_limits<int32_t>::max()) {
      return bad("model.vocab entry " + std::to_string(entries.size()) +
                 " must have an id of 0 to 2147483646");
    }
    if (it->name.GetStringLength() == 0) return bad("model.vocab holds an empty token");
    entries.push_back({{it->name.GetString(), it->name.GetStringLength()}, it->value.GetInt()});
  }
  return sorted_unique(std::move(entries));
}

}  // namespace

struct Tokenizer::Impl {
  Normaliser normaliser;
  ByteTrie initial;     // every token
  ByteTrie continuing;  // tokens that carry on a word, without their prefix
  int32_t unknown_id;
  size_t max_word_chars;
  size_t vocab_size;

  void append_word(std::string_view word, std::vector<int32_t>* ids) const;
};

void Tokenizer::Impl::append_word(std::string_view word, std::vector<int32_t>* ids) const {
  if (word.size() > max_word_chars) {
    const auto chars = std::count_if(word.begin(), word.end(), [](char byte) {
      return (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
    });
    if (static_cast<size_t>(chars) > max_word_chars) return ids->push_back(unknown_id);
  }
  const size_t before = ids->size();
  const ByteTrie* trie = &initial;
  while (!word.empty()) {
    const ByteTrie::Match match = trie->longest_prefix(word);
    if (match.length == 0) {  // one unknown piece makes the whole word unknown
      ids->resize(before);
      return ids->push_back(unknown_id);
    }
    ids->push_back(match.id);
    word.remove_prefix(match.length);
    trie = &continuing;
  }
}

Result<Tokenizer> Tokenizer::from_json(std::string_view json) {
  rapidjson::Document document;
  document.Parse<kJsonFlags>(json.data(), json.size());
  if (document.HasParseError()) {
    return bad("not valid JSON at byte " + std::to_string(document.GetErrorOffset()));
  }
  if (!document.IsObject()) return bad("the top level must be an object");

  const auto normalizer = typed_object(document, "normalizer", "BertNormalizer");
  if (!normalizer.ok()) return normalizer.status();
  const auto pre_tokenizer = typed_object(document, "pre_tokenizer", "BertPreTokenizer");
  if (!pre_tokenizer.ok()) return pre_tokenizer.status();
  const auto typed_model = typed_object(document, "model", "WordPiece");
  if (!typed_model.ok()) return typed_model.status();
  const rapidjson::Value& model = *typed_model.value();

  const auto options = read_normaliser(*normalizer.value());
  if (!options.ok()) return options.status();
  const auto prefix = read_string(model, "continuing_subword_prefix");
  if (!prefix.ok()) return prefix.status();
  const auto unknown = read_string(model, "unk_token");
  if (!unknown.ok()) return unknown.status();
  const auto max_chars = model.FindMember("max_input_chars_per_word");
  if (max_chars == model.MemberEnd() || !max_chars->value.IsUint() ||
      max_chars->value.GetUint() == 0) {
    return bad("model.max_input_chars_per_word must be an integer of at least 1");
  }
  const auto vocab = read_vocab(model);
  if (!vocab.ok()) return vocab.status();

  const std::vector<VocabEntry>& entries = vocab.value();
  const auto unknown_entry = std::lower_bound(
      entries.begin(), entries.end(), unknown.value(),
      [](const VocabEntry& entry, std::string_view text) { return entry.text < text; });
  if (unknown_entry == entries.end() || unknown_entry->text != unknown.value()) {
    return bad("model.vocab does not hold model.unk_token");
  }
  const auto largest =
      std::max_element(entries.begin(), entries.end(),
                       [](const VocabEntry& a, const VocabEntry& b) { return a.id < b.id; });
  return Tokenizer(std::unique_ptr<Impl>(new Impl{Normaliser(options.value()), ByteTrie(entries),
                                                  ByteTrie(without_prefix(entries, prefix.value())),
                                                  unknown_entry->id, max_chars->value.GetUint(),
                                                  static_cast<size_t>(largest->id) + 1}));
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Status Tokenizer::encode(std::string_view utf8, std::vector<int32_t>* ids) const {
  const size_t error = find_utf8_error(utf8);
  if (error != kNoUtf8Error) {
    return {Code::kBadUtf8, "the text is not valid UTF-8 at byte " + std::to_string(error) +
                                " of " + std::to_string(utf8.size()) +
                                "; decode it with its own encoding and pass UTF-8"};
  }
  std::string words;
  impl_->normaliser.append_words(utf8, &words);
  const char* cursor = words.data();
  const char* const end = cursor + words.size();
  while (cursor != end) {
    const char* word_end = cursor;
    while (word_end != end && *word_end != ' ') ++word_end;
    if (word_end != cursor) {
      impl_->append_word({cursor, static_cast<size_t>(word_end - cursor)}, ids);
    }
    cursor = word_end == end ? end : word_end + 1;
  }
  return Status::success();
}

size_t Tokenizer::vocab_size() const noexcept { return impl_->vocab_size; }

}  // namespace csrm
