// The scanners of pre_tokens.h. Each tries the alternatives of its pattern in their order; what a
// backtracking engine would find is worked out from the ends of runs of one class.
#include "pre_tokens.h"

#include <cstddef>
#include <cstdint>

#include "utf8.h"

namespace csrm {
namespace {

// Bits of a code point's property byte; make_bpe_tables.py writes the same values.
constexpr uint8_t kLetter = 1;   // \p{L}
constexpr uint8_t kNumber = 2;   // \p{N}
constexpr uint8_t kNumeric = 4;  // set apart by Digits; every kNumber is
constexpr uint8_t kSpace = 8;    // \s
constexpr uint8_t kNoSymbol = kLetter | kNumber | kSpace;

#include "word_tables.inc"

// Spelt as in the files.
constexpr std::string_view kQwen2Pattern =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)re"
    R"re(\s*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kLlama3Pattern =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+)re"
    R"re([\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";

// The properties of the code point at `*cursor`, which then points behind it.
uint8_t next_properties(const char** cursor) {
  const char32_t code_point = decode_utf8(cursor);
  const size_t block = kPropertyBlocks[code_point >> kPropertyShift];
  return kProperties[(block << kPropertyShift) | (code_point & ((1u << kPropertyShift) - 1))];
}

// One word of a pattern at the beginning of [begin, end), which is not empty.
class WordScanner {
 public:
  WordScanner(const char* begin, const char* end)
      : begin_(begin), end_(end), second_(begin), first_class_(next_properties(&second_)) {}

  // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  const char* gpt2_end() const {
    if (const char* after = contraction_end(false)) return after;
    const char* const body = *begin_ == ' ' ? second_ : begin_;
    const uint8_t body_class = class_at(body) & kNoSymbol;
    if (body != end_ && body_class != kSpace) return run_end(body, kNoSymbol, body_class);
    return blank_end(run_end(second_, kSpace, kSpace));
  }

  // (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,max_digits}|
  // ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
  const char* qwen2_end(int max_digits) const {
    if (const char* after = contraction_end(true)) return after;
    if (first_class_ & kLetter) return run_end(second_, kLetter, kLetter);
    if (first_class_ & kNumber) return digits_end(max_digits);
    if (!is_newline(*begin_) && (class_at(second_) & kLetter)) {
      return run_end(second_, kLetter, kLetter);
    }
    const char* const body = *begin_ == ' ' ? second_ : begin_;
    if (body != end_ && (class_at(body) & kNoSymbol) == 0) {
      const char* after = run_end(body, kNoSymbol, 0);
      while (after != end_ && is_newline(*after)) ++after;
      return after;
    }
    const char* const run = run_end(second_, kSpace, kSpace);
    for (const char* at = run; at != begin_; --at) {
      if (is_newline(at[-1])) return at;
    }
    return blank_end(run);
  }

 private:
  static bool is_newline(char byte) { return byte == '\n' || byte == '\r'; }

  // 0, as of a symbol, at the end.
  uint8_t class_at(const char* at) const { return at == end_ ? uint8_t{0} : next_properties(&at); }

  // End of the code points from `at` on whose properties under `mask` are `wanted`.
  const char* run_end(const char* at, uint8_t mask, uint8_t wanted) const {
    while (at != end_) {
      const char* after = at;
      if ((next_properties(&after) & mask) != wanted) break;
      at = after;
    }
    return at;
  }

  const char* digits_end(int max_digits) const {
    const char* at = second_;
    for (int n = 1; n < max_digits && at != end_; ++n) {
      const char* after = at;
      if (!(next_properties(&after) & kNumber)) break;
      at = after;
    }
    return at;
  }

  // \s+(?!\S)|\s+ of a run of spaces: its last one is left to a word that follows.
  const char* blank_end(const char* run) const {
    if (run == end_) return run;
    const char* last = run;
    do --last;
    while ((static_cast<unsigned char>(*last) & 0xC0) == 0x80);
    return last == begin_ ? run : last;
  }

  // End of an English contraction, or null.
  const char* contraction_end(bool fold) const {
    if (*begin_ != '\'') return nullptr;
    const std::string_view rest(begin_ + 1, static_cast<size_t>(end_ - begin_ - 1));
    const auto letter = [&](size_t i) {
      const char byte = i < rest.size() ? rest[i] : '\0';
      return fold && byte >= 'A' && byte <= 'Z' ? static_cast<char>(byte - 'A' + 'a') : byte;
    };
    const char first = letter(0), second = letter(1);
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return begin_ + 2;
    if (second == 'e' && (first == 'r' || first == 'v')) return begin_ + 3;
    if (first == 'l' && second == 'l') return begin_ + 3;
    // U+017F, the long s, is an s to a pattern that ignores case; no other letter is like it.
    if (fold && rest.substr(0, 2) == "\xC5\xBF") return begin_ + 3;
    return nullptr;
  }

  const char* const begin_;
  const char* const end_;
  const char* second_;  // behind the first code point
  const uint8_t first_class_;
};

}  // namespace

std::optional<SplitStyle> split_style_of(std::string_view pattern) {
  if (pattern == kQwen2Pattern) return SplitStyle::kQwen2;
  if (pattern == kLlama3Pattern) return SplitStyle::kLlama3;
  return std::nullopt;
}

std::string_view PreTokens::next() {
  if (cursor_ == end_) return {};
  const char* const begin = cursor_;
  if (cursor_ == part_end_) {  // only with kDigitsGpt2
    const char* after = begin;
    if (next_properties(&after) & kNumeric) {
      cursor_ = part_end_ = after;
      return {begin, static_cast<size_t>(after - begin)};
    }
    do {
      part_end_ = after;
    } while (after != end_ && !(next_properties(&after) & kNumeric));
  }
  const WordScanner scanner(begin, part_end_);
  switch (style_) {
    case SplitStyle::kGpt2:
    case SplitStyle::kDigitsGpt2:
      cursor_ = scanner.gpt2_end();
      break;
    case SplitStyle::kQwen2:
      cursor_ = scanner.qwen2_end(1);
      break;
    case SplitStyle::kLlama3:
      cursor_ = scanner.qwen2_end(3);
      break;
  }
  return {begin, static_cast<size_t>(cursor_ - begin)};
}

}  // namespace csrm
