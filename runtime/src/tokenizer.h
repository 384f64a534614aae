// Text -> token ids, WordPiece with BERT normalisation, equal to Hugging Face's `tokenizers` for
// text without special tokens. Not: rendering. There are no special tokens here at all: no text,
// whatever it spells, yields a control id (render.h appends those as integers).
// Data comes from the artifact's tokenizer.json; ids go to render.h.
#ifndef CSRM_SRC_TOKENIZER_H_
#define CSRM_SRC_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "csrm/status.h"

namespace csrm {

class Tokenizer {
 public:
  // Parses the text of a tokenizer.json. Errors: BadArtifact (not JSON, missing or ill-typed
  // fields), Unsupported (a model, normalizer or pre-tokenizer other than BERT WordPiece's).
  static Result<Tokenizer> from_json(std::string_view json);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // Appends the ids of `utf8` to `ids`. Thread-safe. On error `ids` is as it was.
  // Errors: BadUtf8 (the message gives the byte offset, never the text).
  Status encode(std::string_view utf8, std::vector<int32_t>* ids) const;

  // Number of ids: every id returned is in [0, vocab_size).
  size_t vocab_size() const noexcept;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace csrm

#endif  // CSRM_SRC_TOKENIZER_H_
