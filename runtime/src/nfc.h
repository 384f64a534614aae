// Unicode normalisation form C, as the NFC normalizer of Hugging Face's `tokenizers` does it
// (Unicode 9.0). Not: BERT's normalisation (normalise.h) and not checking UTF-8 (utf8.h). The
// tables are written at build time by runtime/tools/make_bpe_tables.py.
#ifndef CSRM_SRC_NFC_H_
#define CSRM_SRC_NFC_H_

#include <string>
#include <string_view>

namespace csrm {

// The NFC of `utf8`, which must be valid UTF-8: `utf8` itself where nothing can change, else
// `*storage`, which is overwritten. Time: O(n log n). Thread-safe.
std::string_view to_nfc(std::string_view utf8, std::string* storage);

}  // namespace csrm

#endif  // CSRM_SRC_NFC_H_
