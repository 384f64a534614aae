// Checking and encoding of UTF-8; the contract is in utf8.h.
#include "utf8.h"

#include <cstdint>
#include <cstring>

namespace csrm {
namespace {

bool is_continuation(unsigned char byte) { return (byte & 0xC0) == 0x80; }

// Length of the multi-byte sequence at `bytes`, of which `n` are readable; 0 if it is not valid.
size_t valid_sequence(const unsigned char* bytes, size_t n) {
  const unsigned char lead = bytes[0];
  if (lead < 0xC2 || lead > 0xF4) return 0;
  const size_t length = utf8_length(lead);
  if (n < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if (!is_continuation(bytes[i])) return 0;
  }
  // The second byte decides about overlong forms, surrogates and the upper end.
  const unsigned char second = bytes[1];
  if (lead == 0xE0 && second < 0xA0) return 0;
  if (lead == 0xED && second > 0x9F) return 0;
  if (lead == 0xF0 && second < 0x90) return 0;
  if (lead == 0xF4 && second > 0x8F) return 0;
  return length;
}

}  // namespace

size_t find_utf8_error(std::string_view text) noexcept {
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
  const size_t n = text.size();
  size_t at = 0;
  while (at < n) {
    if (bytes[at] < 0x80) {
      uint64_t word = 0;
      while (at + sizeof(word) <= n) {
        std::memcpy(&word, bytes + at, sizeof(word));
        if ((word & 0x8080808080808080u) != 0) break;
        at += sizeof(word);
      }
      while (at < n && bytes[at] < 0x80) ++at;
      continue;
    }
    const size_t length = valid_sequence(bytes + at, n - at);
    if (length == 0) return at;
    at += length;
  }
  return kNoUtf8Error;
}

void append_utf8(char32_t code_point, std::string* out) {
  const auto tail = [code_point](int shift) {
    return static_cast<char>(0x80 | (code_point >> shift & 0x3F));
  };
  if (code_point < 0x80) {
    out->push_back(static_cast<char>(code_point));
  } else if (code_point < 0x800) {
    const char bytes[] = {static_cast<char>(0xC0 | code_point >> 6), tail(0)};
    out->append(bytes, sizeof(bytes));
  } else if (code_point < 0x10000) {
    const char bytes[] = {static_cast<char>(0xE0 | code_point >> 12), tail(6), tail(0)};
    out->append(bytes, sizeof(bytes));
  } else {
    const char bytes[] = {static_cast<char>(0xF0 | code_point >> 18), tail(12), tail(6), tail(0)};
    out->append(bytes, sizeof(bytes));
  }
}

}  // namespace csrm
