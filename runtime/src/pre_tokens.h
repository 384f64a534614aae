// Pre-tokenisation of byte-level BPE: cuts a text into the words that merges never cross, as the
// split patterns of four families of tokenizer.json do, by hand-written scanners.
// Not: merging (bpe_merges.h). Character classes come from runtime/tools/make_bpe_tables.py, which
// says whose Unicode they follow.
#ifndef CSRM_SRC_PRE_TOKENS_H_
#define CSRM_SRC_PRE_TOKENS_H_

#include <optional>
#include <string_view>

namespace csrm {

enum class SplitStyle {
  kGpt2,        // ByteLevel with its own pattern
  kDigitsGpt2,  // every numeric character apart, then GPT-2's pattern (SmolLM2)
  kQwen2,       // Split with the pattern of Qwen2, Qwen2.5 and Qwen3
  kLlama3,      // the same with numbers of up to three digits
};

// The style whose Split pattern is exactly `pattern`.
std::optional<SplitStyle> split_style_of(std::string_view pattern);

// One pass over a text. The words, joined, are the text. Time: O(n).
class PreTokens {
 public:
  // `utf8` must be valid UTF-8 and outlive this object.
  PreTokens(SplitStyle style, std::string_view utf8)
      : style_(style),
        cursor_(utf8.data()),
        part_end_(style == SplitStyle::kDigitsGpt2 ? cursor_ : cursor_ + utf8.size()),
        end_(cursor_ + utf8.size()) {}

  // The next word; empty at the end of the text.
  std::string_view next();

 private:
  SplitStyle style_;
  const char* cursor_;
  const char* part_end_;  // where the pattern sees the end of the text
  const char* end_;
};

}  // namespace csrm

#endif  // CSRM_SRC_PRE_TOKENS_H_
