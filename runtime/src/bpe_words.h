// The tokens of a byte-level BPE model: the alphabet in which files spell bytes as letters, and a
// table from bytes to the token that spells them. Not: merging (bpe_merges.h).
#ifndef CSRM_SRC_BPE_WORDS_H_
#define CSRM_SRC_BPE_WORDS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace csrm {

// Replaces `*bytes` with what `token`, valid UTF-8 in the alphabet of byte-level BPE, stands for.
// False if it holds a character that stands for no byte: then no text can contain the token.
bool spell_bytes(std::string_view token, std::string* bytes);

// Immutable after the last add, so thread-safe then.
class BpeWords {
 public:
  struct Word {
    uint64_t offset;  // of its bytes in bytes_
    uint32_t length;  // 0: no word, as an empty word cannot be added
    uint32_t hash;    // upper half
    int32_t id;
    bool is_whole;  // a text's word of these bytes is this token, without any merging
  };

  // Makes room for `n_words`, which add must not exceed.
  explicit BpeWords(size_t n_words);

  // Adds a word that is not empty and not in the table.
  void add(std::string_view bytes, int32_t id);

  // The word of these bytes, or null.
  const Word* find(std::string_view bytes) const {
    const Word& word = words_[slot_of(bytes)];
    return word.length == 0 ? nullptr : &word;
  }

  // Sets is_whole of every word: what `decide(bytes, id)` says.
  template <typename Decide>
  void mark_whole(const Decide& decide) {
    for (Word& word : words_) {
      if (word.length != 0) word.is_whole = decide(text_of(word), word.id);
    }
  }

 private:
  std::string_view text_of(const Word& word) const {
    return {bytes_.data() + word.offset, word.length};
  }
  size_t slot_of(std::string_view bytes) const;

  std::vector<Word> words_;  // open addressing; a power of two, at least twice the words
  std::string bytes_;
};

}  // namespace csrm

#endif  // CSRM_SRC_BPE_WORDS_H_
