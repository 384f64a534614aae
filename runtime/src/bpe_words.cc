// The alphabet and the table of bpe_words.h.
#include "bpe_words.h"

#include <array>
#include <functional>

#include "utf8.h"

namespace csrm {
namespace {

// A byte that is a printing character of Latin-1 stands for itself; the others, in their order, are
// the letters from U+0100 on.
constexpr size_t kFirstOther = 0x100, kOthers = 68;

bool stands_for_itself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
}

// By letter: its byte, or -1.
std::array<int16_t, kFirstOther + kOthers> make_alphabet() {
  std::array<int16_t, kFirstOther + kOthers> bytes;
  bytes.fill(-1);
  size_t next_other = kFirstOther;
  for (unsigned byte = 0; byte < 0x100; ++byte) {
    bytes[stands_for_itself(byte) ? byte : next_other++] = static_cast<int16_t>(byte);
  }
  return bytes;
}

}  // namespace

bool spell_bytes(std::string_view token, std::string* bytes) {
  static const auto alphabet = make_alphabet();
  bytes->clear();
  const char* cursor = token.data();
  const char* const end = cursor + token.size();
  while (cursor != end) {
    const char32_t letter = decode_utf8(&cursor);
    if (letter >= alphabet.size() || alphabet[letter] < 0) return false;
    bytes->push_back(static_cast<char>(alphabet[letter]));
  }
  return true;
}

BpeWords::BpeWords(size_t n_words) {
  size_t size = 2;
  while (size < 2 * n_words) size *= 2;
  words_.assign(size, {0, 0, 0, 0, false});
}

void BpeWords::add(std::string_view bytes, int32_t id) {
  Word& word = words_[slot_of(bytes)];
  const uint64_t hash = std::hash<std::string_view>()(bytes);
  word = {bytes_.size(), static_cast<uint32_t>(bytes.size()), static_cast<uint32_t>(hash >> 32), id,
          false};
  bytes_.append(bytes);
}

size_t BpeWords::slot_of(std::string_view bytes) const {
  const uint64_t hash = std::hash<std::string_view>()(bytes);
  size_t at = static_cast<size_t>(hash) & (words_.size() - 1);
  while (words_[at].length != 0 &&
         (words_[at].hash != static_cast<uint32_t>(hash >> 32) || text_of(words_[at]) != bytes)) {
    at = (at + 1) & (words_.size() - 1);
  }
  return at;
}

}  // namespace csrm
