// The WordPiece model of wordpiece.h: longest match first over tries of bytes.
// Not: what a word is (normalise.cc). Hugging Face loads the file's "added_tokens" as strings to
// look for in the text; they are ignored here on purpose, so no text can spell a control token.
#include "wordpiece.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "normalise.h"
#include "tokenizer_json.h"

namespace csrm {
namespace {

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

// Reads the boolean `key`; null keeps `*value`.
Status read_bool(const rapidjson::Value& object, const char* key, bool nullable, bool* value) {
  const auto member = object.FindMember(key);
  const bool is_null = member != object.MemberEnd() && member->value.IsNull();
  if (is_null && nullable) return Status::success();
  if (member == object.MemberEnd() || !member->value.IsBool()) {
    return bad_tokenizer(std::string("normalizer.") + key + " must be a boolean");
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
    return bad_tokenizer(std::string("model.") + key + " must be a string");
  }
  return std::string_view(member->value.GetString(), member->value.GetStringLength());
}

class WordPiece final : public TokenizerModel {
 public:
  WordPiece(const NormaliserOptions& options, const std::vector<VocabEntry>& entries,
            std::string_view prefix, int32_t unknown_id, size_t max_word_chars, size_t vocab_size)
      : normaliser_(options),
        initial_(entries),
        continuing_(without_prefix(entries, prefix)),
        unknown_id_(unknown_id),
        max_word_chars_(max_word_chars),
        vocab_size_(vocab_size) {}

  void append_ids(std::string_view utf8, std::vector<int32_t>* ids) const override;
  size_t vocab_size() const noexcept override { return vocab_size_; }
  std::optional<int32_t> id_of(std::string_view literal) const override;

 private:
  void append_word(std::string_view word, std::vector<int32_t>* ids) const;

  const Normaliser normaliser_;
  const ByteTrie initial_;     // every token
  const ByteTrie continuing_;  // tokens that carry on a word, without their prefix
  const int32_t unknown_id_;
  const size_t max_word_chars_;
  const size_t vocab_size_;
};

void WordPiece::append_word(std::string_view word, std::vector<int32_t>* ids) const {
  if (word.size() > max_word_chars_) {
    const auto chars = std::count_if(word.begin(), word.end(), [](char byte) {
      return (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
    });
    if (static_cast<size_t>(chars) > max_word_chars_) return ids->push_back(unknown_id_);
  }
  const size_t before = ids->size();
  const ByteTrie* trie = &initial_;
  while (!word.empty()) {
    const ByteTrie::Match match = trie->longest_prefix(word);
    if (match.length == 0) {  // one unknown piece makes the whole word unknown
      ids->resize(before);
      return ids->push_back(unknown_id_);
    }
    ids->push_back(match.id);
    word.remove_prefix(match.length);
    trie = &continuing_;
  }
}

void WordPiece::append_ids(std::string_view utf8, std::vector<int32_t>* ids) const {
  std::string words;
  normaliser_.append_words(utf8, &words);
  const char* cursor = words.data();
  const char* const end = cursor + words.size();
  while (cursor != end) {
    const char* word_end = cursor;
    while (word_end != end && *word_end != ' ') ++word_end;
    if (word_end != cursor) append_word({cursor, static_cast<size_t>(word_end - cursor)}, ids);
    cursor = word_end == end ? end : word_end + 1;
  }
}

std::optional<int32_t> WordPiece::id_of(std::string_view literal) const {
  const ByteTrie::Match match = initial_.longest_prefix(literal);
  if (match.length == 0 || match.length != literal.size()) return std::nullopt;
  return match.id;
}

}  // namespace

Result<std::unique_ptr<const TokenizerModel>> read_wordpiece(const rapidjson::Value& document) {
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
    return bad_tokenizer("model.max_input_chars_per_word must be an integer of at least 1");
  }
  auto vocab = read_vocab(model);
  if (!vocab.ok()) return vocab.status();

  const std::vector<VocabEntry> entries = sorted_unique(std::move(vocab).value());
  const auto unknown_entry = std::lower_bound(
      entries.begin(), entries.end(), unknown.value(),
      [](const VocabEntry& entry, std::string_view text) { return entry.text < text; });
  if (unknown_entry == entries.end() || unknown_entry->text != unknown.value()) {
    return bad_tokenizer("model.vocab does not hold model.unk_token");
  }
  const auto largest =
      std::max_element(entries.begin(), entries.end(),
                       [](const VocabEntry& a, const VocabEntry& b) { return a.id < b.id; });
  return std::unique_ptr<const TokenizerModel>(std::make_unique<WordPiece>(
      options.value(), entries, prefix.value(), unknown_entry->id, max_chars->value.GetUint(),
      static_cast<size_t>(largest->id) + 1));
}

}  // namespace csrm
