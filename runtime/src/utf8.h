// UTF-8 as the Unicode Standard defines it (table 3-7): checking, decoding, encoding.
// Not: normalisation (normalise.h). Surrogates, overlong forms and code points above U+10FFFF are
// errors; nothing is ever replaced. Texts enter the runtime through find_utf8_error.
#ifndef CSRM_SRC_UTF8_H_
#define CSRM_SRC_UTF8_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace csrm {

constexpr size_t kNoUtf8Error = static_cast<size_t>(-1);

// Byte offset of the first sequence of `text` that is not UTF-8, or kNoUtf8Error.
size_t find_utf8_error(std::string_view text) noexcept;

// Bytes of the sequence that starts with `lead`, a lead byte of valid UTF-8.
inline size_t utf8_length(unsigned char lead) noexcept {
  return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

// The code point at `*cursor`, which then points behind it. The text must be valid UTF-8.
inline char32_t decode_utf8(const char** cursor) noexcept {
  const auto* bytes = reinterpret_cast<const unsigned char*>(*cursor);
  const size_t length = utf8_length(bytes[0]);
  *cursor += length;
  if (length == 1) return bytes[0];
  char32_t code_point = bytes[0] & (0x7Fu >> length);
  for (size_t i = 1; i < length; ++i) code_point = code_point << 6 | (bytes[i] & 0x3Fu);
  return code_point;
}

// Appends the UTF-8 of `code_point`, a Unicode scalar value, to `out`.
void append_utf8(char32_t code_point, std::string* out);

}  // namespace csrm

#endif  // CSRM_SRC_UTF8_H_
