// The normaliser of normalise.h. The order of its steps is that of Hugging Face's: clean, set CJK
// apart, decompose (NFD), drop marks, lowercase, split at spaces and punctuation; here they run per
// code point in one pass. Only canonical reordering looks at more than one code point.
#include "normalise.h"

#include <algorithm>
#include <iterator>
#include <vector>

#include "utf8.h"

namespace csrm {
namespace {

// Bits of a code point's property byte; make_unicode_tables.py writes the same values.
constexpr uint8_t kDropped = 1;      // removed by clean_text
constexpr uint8_t kWhite = 2;        // white space
constexpr uint8_t kPunctuation = 4;  // a word of its own
constexpr uint8_t kIdeograph = 8;    // set apart by handle_chinese_chars
constexpr uint8_t kMark = 16;        // nonspacing mark, removed by strip_accents
constexpr uint8_t kOrdered = 32;     // canonical combining class is not 0
constexpr uint8_t kDecomposes = 64;
constexpr uint8_t kHasLower = 128;

// The sequence kSequences[offset .. offset + length) replaces `code_point`.
struct Mapping {
  uint32_t code_point;
  uint16_t offset;
  uint16_t length;
};

// Combining class of every code point in [first, last] that strip_accents keeps.
struct CombiningRange {
  uint32_t first, last;
  uint8_t combining_class;
};

#include "unicode_tables.inc"

uint8_t properties(char32_t code_point) {
  const size_t block = kPropertyBlocks[code_point >> kPropertyShift];
  return kProperties[(block << kPropertyShift) | (code_point & ((1u << kPropertyShift) - 1))];
}

// `code_point` must be in `mappings`, as its property bit says.
template <size_t n>
const Mapping& find_mapping(const Mapping (&mappings)[n], char32_t code_point) {
  return *std::lower_bound(
      std::begin(mappings), std::end(mappings), code_point,
      [](const Mapping& mapping, char32_t wanted) { return mapping.code_point < wanted; });
}

uint8_t combining_class(char32_t code_point) {
  const CombiningRange* range = std::lower_bound(
      std::begin(kCombining), std::end(kCombining), code_point,
      [](const CombiningRange& candidate, char32_t wanted) { return candidate.last < wanted; });
  return range->combining_class;
}

// Hangul syllables decompose by arithmetic (Unicode Standard, section 3.12).
constexpr char32_t kFirstSyllable = 0xAC00, kLastSyllable = 0xD7A3;
constexpr char32_t kLeading = 0x1100, kVowel = 0x1161, kTrailing = 0x11A7;
constexpr char32_t kVowels = 21, kTrailings = 28;

}  // namespace

// One call of append_words: carries the run of combining characters that is still to be ordered.
class Normaliser::Writer {
 public:
  Writer(const NormaliserOptions& options, std::string* words) : options_(options), out_(words) {}

  void write_ascii(AsciiRule rule) {
    switch (rule.kind) {
      case AsciiClass::kDropped:
        return;
      case AsciiClass::kWord:
        flush();
        out_->push_back(rule.folded);
        return;
      case AsciiClass::kSpace:
        flush();
        out_->push_back(' ');
        return;
      case AsciiClass::kPunctuation: {
        flush();
        const char word[] = {' ', rule.folded, ' '};
        out_->append(word, sizeof(word));
        return;
      }
    }
  }

  void write(char32_t code_point) {
    const uint8_t props = properties(code_point);
    if (options_.clean_text) {
      if (props & kDropped) return;
      if (props & kWhite) return write_ascii({AsciiClass::kSpace, ' '});
    }
    const bool apart = options_.handle_chinese_chars && (props & kIdeograph);
    if (apart) write_ascii({AsciiClass::kSpace, ' '});
    if (options_.strip_accents) {
      decompose(code_point, props);
    } else {
      fold(code_point, props);
    }
    if (apart) write_ascii({AsciiClass::kSpace, ' '});
  }

  // Writes the pending combining characters in canonical order.
  void flush() {
    if (run_.empty()) return;
    std::stable_sort(run_.begin(), run_.end(),
                     [](const Pending& a, const Pending& b) { return a.order < b.order; });
    for (const Pending& pending : run_) fold(pending.code_point, properties(pending.code_point));
    run_.clear();
  }

 private:
  struct Pending {
    uint8_t order;  // combining class
    char32_t code_point;
  };

  void decompose(char32_t code_point, uint8_t props) {
    if (!(props & kDecomposes)) return order(code_point, props);
    if (code_point >= kFirstSyllable && code_point <= kLastSyllable) {
      const char32_t index = code_point - kFirstSyllable;
      const char32_t trailing = index % kTrailings;
      order(kLeading + index / (kVowels * kTrailings), 0);
      order(kVowel + index / kTrailings % kVowels, 0);
      if (trailing != 0) order(kTrailing + trailing, 0);
      return;
    }
    const Mapping& mapping = find_mapping(kDecompositions, code_point);
    for (uint16_t i = 0; i < mapping.length; ++i) {
      const char32_t part = kSequences[mapping.offset + i];
      order(part, properties(part));
    }
  }

  // Takes one fully decomposed code point. A mark is dropped here, before the run is sorted: a
  // stable sort of what remains is what remains of the stable sort. A starter ends the run even if
  // it is a mark.
  void order(char32_t code_point, uint8_t props) {
    if (!(props & kOrdered)) {
      flush();
      if (!(props & kMark)) fold(code_point, props);
    } else if (!(props & kMark)) {
      run_.push_back({combining_class(code_point), code_point});
    }
  }

  void fold(char32_t code_point, uint8_t props) {
    if (!options_.lowercase || !(props & kHasLower)) return split(code_point, props);
    const Mapping& mapping = find_mapping(kLowercase, code_point);
    for (uint16_t i = 0; i < mapping.length; ++i) {
      const char32_t part = kSequences[mapping.offset + i];
      split(part, properties(part));
    }
  }

  void split(char32_t code_point, uint8_t props) {
    if (props & kWhite) {
      out_->push_back(' ');
    } else if (props & kPunctuation) {
      out_->push_back(' ');
      append_utf8(code_point, out_);
      out_->push_back(' ');
    } else {
      append_utf8(code_point, out_);
    }
  }

  const NormaliserOptions& options_;
  std::string* out_;
  std::vector<Pending> run_;
};

Normaliser::Normaliser(const NormaliserOptions& options) : options_(options) {
  for (size_t byte = 0; byte < ascii_.size(); ++byte) {
    const char32_t code_point = static_cast<char32_t>(byte);
    const uint8_t props = properties(code_point);
    AsciiRule rule{AsciiClass::kWord, static_cast<char>(byte)};
    if (options.clean_text && (props & kDropped)) {
      rule.kind = AsciiClass::kDropped;
    } else if (props & kWhite) {
      rule.kind = AsciiClass::kSpace;
    } else if (props & kPunctuation) {
      rule.kind = AsciiClass::kPunctuation;
    } else if (options.lowercase && (props & kHasLower)) {
      rule.folded = static_cast<char>(kSequences[find_mapping(kLowercase, code_point).offset]);
    }
    ascii_[byte] = rule;
  }
}

void Normaliser::append_words(std::string_view utf8, std::string* words) const {
  words->reserve(words->size() + utf8.size() + utf8.size() / 4 + 16);
  Writer writer(options_, words);
  const char* cursor = utf8.data();
  const char* const end = cursor + utf8.size();
  while (cursor != end) {
    const auto byte = static_cast<unsigned char>(*cursor);
    if (byte < 0x80) {
      ++cursor;
      writer.write_ascii(ascii_[byte]);
    } else {
      writer.write(decode_utf8(&cursor));
    }
  }
  writer.flush();
}

}  // namespace csrm
