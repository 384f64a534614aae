// BERT text normalisation: UTF-8 -> words separated by spaces, as the BertNormalizer and
// BertPreTokenizer of Hugging Face's `tokenizers` see them, code point by code point.
// Not: WordPiece (tokenizer.cc) and not checking UTF-8 (utf8.h). The character tables are written
// at build time by runtime/tools/make_unicode_tables.py, which documents whose Unicode they follow.
#ifndef CSRM_SRC_NORMALISE_H_
#define CSRM_SRC_NORMALISE_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace csrm {

// The "normalizer" object of a tokenizer.json.
struct NormaliserOptions {
  bool clean_text = true;            // drop control characters; every kind of space becomes U+0020
  bool handle_chinese_chars = true;  // each CJK ideograph is a word of its own
  bool strip_accents = true;         // canonical decomposition without its nonspacing marks
  bool lowercase = true;
};

// Immutable, so thread-safe.
class Normaliser {
 public:
  explicit Normaliser(const NormaliserOptions& options);

  // Appends the words of `utf8`, which must be valid UTF-8, to `words`. Between two words stands at
  // least one U+0020, which no word contains; a punctuation character is a word of its own.
  void append_words(std::string_view utf8, std::string* words) const;

 private:
  class Writer;
  enum class AsciiClass : uint8_t { kWord, kDropped, kSpace, kPunctuation };
  struct AsciiRule {
    AsciiClass kind;
    char folded;
  };

  NormaliserOptions options_;
  std::array<AsciiRule, 128> ascii_;  // what every option together does to an ASCII character
};

}  // namespace csrm

#endif  // CSRM_SRC_NORMALISE_H_
