// The model of bpe_tokenizer.h: text -> NFC (nfc.cc) -> words (pre_tokens.cc) -> bytes -> merges
// (bpe_merges.cc). A word that is a token and that merging its bytes would give back is looked up
// instead, which is decided once per token at load.
#include "bpe_tokenizer.h"

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <utility>

#include "bpe_json.h"
#include "bpe_merges.h"
#include "bpe_words.h"
#include "nfc.h"
#include "pre_tokens.h"

namespace csrm {
namespace {

constexpr int32_t kNoId = -1;

class ByteLevelBpe final : public TokenizerModel {
 public:
  ByteLevelBpe(const BpeFile& file, BpeMerges merges)
      : split_(file.split),
        normalises_nfc_(file.normalises_nfc),
        merges_(std::move(merges)),
        words_(file.vocab.size()) {
    byte_ids_.fill(kNoId);
    for (const VocabEntry& entry : file.vocab) add_token(entry);
    for (const VocabEntry& entry : file.added) add_literal(entry);
    std::vector<int32_t> ids;
    words_.mark_whole([&](std::string_view bytes, int32_t id) {
      if (file.ignores_merges) return true;
      ids.clear();
      append_merged(bytes, &ids);
      return ids.size() == 1 && ids[0] == id;
    });
  }

  void append_ids(std::string_view utf8, std::vector<int32_t>* ids) const override {
    std::string storage;
    if (normalises_nfc_) utf8 = to_nfc(utf8, &storage);
    PreTokens words(split_, utf8);
    for (std::string_view word = words.next(); !word.empty(); word = words.next()) {
      const BpeWords::Word* known = words_.find(word);
      if (known != nullptr && known->is_whole) {
        ids->push_back(known->id);
      } else {
        append_merged(word, ids);
      }
    }
  }

  size_t vocab_size() const noexcept override { return vocab_size_; }

  std::optional<int32_t> id_of(std::string_view literal) const override {
    const auto found = literals_.find(literal);
    if (found != literals_.end()) return found->second;
    std::string bytes;
    const BpeWords::Word* word = spell_bytes(literal, &bytes) ? words_.find(bytes) : nullptr;
    if (word == nullptr) return std::nullopt;
    return word->id;
  }

 private:
  void add_token(const VocabEntry& entry) {
    std::string bytes;
    if (!spell_bytes(entry.text, &bytes)) return add_literal(entry);
    words_.add(bytes, entry.id);
    if (bytes.size() == 1) byte_ids_[static_cast<unsigned char>(bytes[0])] = entry.id;
    count_id(entry.id);
  }

  void add_literal(const VocabEntry& entry) {
    literals_.emplace(entry.text, entry.id);
    count_id(entry.id);
  }

  void count_id(int32_t id) { vocab_size_ = std::max(vocab_size_, static_cast<size_t>(id) + 1); }

  // A byte that is no token leaves nothing behind, as in Hugging Face's without an unknown token.
  void append_merged(std::string_view word, std::vector<int32_t>* ids) const {
    const size_t first = ids->size();
    for (const char byte : word) {
      const int32_t id = byte_ids_[static_cast<unsigned char>(byte)];
      if (id != kNoId) ids->push_back(id);
    }
    merges_.merge_tail(first, ids);
  }

  const SplitStyle split_;
  const bool normalises_nfc_;
  const BpeMerges merges_;
  BpeWords words_;                                        // tokens that some text could contain
  std::map<std::string, int32_t, std::less<>> literals_;  // the other tokens, and added ones
  std::array<int32_t, 256> byte_ids_;
  size_t vocab_size_ = 0;
};

}  // namespace

Result<std::unique_ptr<const TokenizerModel>> read_bpe(const rapidjson::Value& document) {
  const Result<BpeFile> file = read_bpe_file(document);
  if (!file.ok()) return file.status();
  BpeMerges merges(file.value().merges.size());
  for (const BpeMerge& merge : file.value().merges) {
    if (!merges.add(merge)) return bad_tokenizer("model.merges holds a duplicate pair");
  }
  return std::unique_ptr<const TokenizerModel>(
      std::make_unique<ByteLevelBpe>(file.value(), std::move(merges)));
}

}  // namespace csrm
