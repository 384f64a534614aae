// The normaliser of nfc.h. A text is cut before every starter that nothing composes with what
// stands before it; each such run is decomposed, ordered and composed by itself (Unicode Standard,
// section 3.11). Most runs are a single code point that is its own NFC.
#include "nfc.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <tuple>
#include <vector>

#include "utf8.h"

namespace csrm {
namespace {

// A property byte is a combining class, or for starters kInert or one of these two;
// make_bpe_tables.py writes the same values and says what they mean.
constexpr uint8_t kInert = 0, kStable = 254, kChanging = 255;

// kSequences[offset .. offset + length) is the full decomposition of `code_point`.
struct Mapping {
  uint32_t code_point;
  uint16_t offset;
  uint16_t length;
};

struct Composition {
  char32_t first, second, whole;
};

#include "nfc_tables.inc"

// Hangul syllables (de)compose by arithmetic (Unicode Standard, section 3.12).
constexpr char32_t kSyllable = 0xAC00, kLeading = 0x1100, kVowel = 0x1161, kTrailing = 0x11A7;
constexpr char32_t kLeadings = 19, kVowels = 21, kTrailings = 28;
constexpr char32_t kSyllables = kLeadings * kVowels * kTrailings;

uint8_t property(char32_t code_point) {
  const size_t block = kPropertyBlocks[code_point >> kPropertyShift];
  return kProperties[(block << kPropertyShift) | (code_point & ((1u << kPropertyShift) - 1))];
}

bool starts_run(uint8_t property) { return property == kInert || property == kStable; }

struct Ordered {
  char32_t code_point;
  uint8_t combining_class;
};

Ordered ordered(char32_t code_point) {
  const uint8_t value = property(code_point);
  return {code_point, value >= kStable ? uint8_t{0} : value};
}

// The primary composite of a pair, or 0.
char32_t compose(char32_t first, char32_t second) {
  if (first - kLeading < kLeadings && second - kVowel < kVowels) {
    return kSyllable + ((first - kLeading) * kVowels + (second - kVowel)) * kTrailings;
  }
  if (first - kSyllable < kSyllables && (first - kSyllable) % kTrailings == 0 &&
      second - kTrailing - 1 < kTrailings - 1) {
    return first + (second - kTrailing);
  }
  const auto found = std::lower_bound(
      std::begin(kCompositions), std::end(kCompositions), std::tie(first, second),
      [](const Composition& composition, const std::tuple<char32_t&, char32_t&>& wanted) {
        return std::tie(composition.first, composition.second) < wanted;
      });
  const bool is_pair =
      found != std::end(kCompositions) && found->first == first && found->second == second;
  return is_pair ? found->whole : 0;
}

void decompose(char32_t code_point, std::vector<Ordered>* parts) {
  if (code_point - kSyllable < kSyllables) {
    const char32_t index = code_point - kSyllable;
    parts->push_back({kLeading + index / (kVowels * kTrailings), 0});
    parts->push_back({kVowel + index / kTrailings % kVowels, 0});
    if (index % kTrailings != 0) parts->push_back({kTrailing + index % kTrailings, 0});
    return;
  }
  const auto found = std::lower_bound(
      std::begin(kDecompositions), std::end(kDecompositions), code_point,
      [](const Mapping& mapping, char32_t wanted) { return mapping.code_point < wanted; });
  if (found == std::end(kDecompositions) || found->code_point != code_point) {
    return parts->push_back(ordered(code_point));
  }
  for (uint16_t i = 0; i < found->length; ++i) {
    parts->push_back(ordered(kSequences[found->offset + i]));
  }
}

// Sorts every stretch of combining characters by class.
void reorder(std::vector<Ordered>* parts) {
  const auto is_starter = [](const Ordered& part) { return part.combining_class == 0; };
  for (auto at = parts->begin(); at != parts->end();) {
    const auto begin = std::find_if_not(at, parts->end(), is_starter);
    at = std::find_if(begin, parts->end(), is_starter);
    std::stable_sort(begin, at, [](const Ordered& a, const Ordered& b) {
      return a.combining_class < b.combining_class;
    });
  }
}

// Composes `parts`, which must be ordered, in place.
void compose_all(std::vector<Ordered>* parts) {
  constexpr size_t kNone = static_cast<size_t>(-1);
  size_t starter = kNone, kept = 0;
  for (size_t i = 0; i < parts->size(); ++i) {
    const Ordered part = (*parts)[i];
    const bool is_free =
        starter != kNone &&
        (kept == starter + 1 || (*parts)[kept - 1].combining_class < part.combining_class);
    const char32_t whole = is_free ? compose((*parts)[starter].code_point, part.code_point) : 0;
    if (whole != 0) {
      (*parts)[starter].code_point = whole;
      continue;
    }
    if (part.combining_class == 0) starter = kept;
    (*parts)[kept++] = part;
  }
  parts->resize(kept);
}

// Collects one run after the other and writes each in NFC.
class Writer {
 public:
  explicit Writer(std::string* out) : out_(out) {}

  void write(char32_t code_point, uint8_t value) {
    if (starts_run(value)) flush();
    run_.push_back(code_point);
  }

  void flush() {
    if (run_.size() == 1 && starts_run(property(run_[0]))) {
      append_utf8(run_[0], out_);
    } else {
      for (const char32_t code_point : run_) decompose(code_point, &parts_);
      reorder(&parts_);
      compose_all(&parts_);
      for (const Ordered& part : parts_) append_utf8(part.code_point, out_);
      parts_.clear();
    }
    run_.clear();
  }

 private:
  std::string* out_;
  std::vector<char32_t> run_;
  std::vector<Ordered> parts_;
};

bool may_change(std::string_view utf8) {
  const char* cursor = utf8.data();
  const char* const end = cursor + utf8.size();
  while (cursor != end) {
    if (static_cast<unsigned char>(*cursor) < 0x80) {
      ++cursor;
    } else if (!starts_run(property(decode_utf8(&cursor)))) {
      return true;
    }
  }
  return false;
}

}  // namespace

std::string_view to_nfc(std::string_view utf8, std::string* storage) {
  if (!may_change(utf8)) return utf8;
  storage->clear();
  storage->reserve(utf8.size() + 16);
  Writer writer(storage);
  const char* cursor = utf8.data();
  const char* const end = cursor + utf8.size();
  while (cursor != end) {
    const char32_t code_point = decode_utf8(&cursor);
    writer.write(code_point, property(code_point));
  }
  writer.flush();
  return *storage;
}

}  // namespace csrm
