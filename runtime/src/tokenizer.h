// Text -> token ids, equal to Hugging Face's `tokenizers` for text without special tokens:
// WordPiece with BERT normalisation (wordpiece.h) or byte-level BPE (bpe_tokenizer.h). Not:
// rendering. There are no special tokens here at all: no text, whatever it spells, yields a control
// id (the renderer appends those as integers).
// Data comes from the artifact's tokenizer.json; ids go to render.h.
#ifndef CSRM_SRC_TOKENIZER_H_
#define CSRM_SRC_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "csrm/status.h"

namespace csrm {

class TokenizerModel;

class Tokenizer {
 public:
  // Parses the text of a tokenizer.json. Errors: BadArtifact (not JSON, missing or ill-typed
  // fields), Unsupported (a model other than WordPiece and BPE, or a part of it that this build
  // does not run; the message names it).
  static Result<Tokenizer> from_json(std::string_view json);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // Appends the ids of `utf8` to `ids`. Thread-safe. On error `ids` is as it was.
  // Errors: BadUtf8 (the message gives the byte offset, never the text).
  Status encode(std::string_view utf8, std::vector<int32_t>* ids) const;

  // Number of ids: every id of a token is in [0, vocab_size).
  size_t vocab_size() const noexcept;

  // Id of the token that the file spells `literal`, control tokens included. For templates, never
  // for text. Thread-safe.
  std::optional<int32_t> id_of(std::string_view literal) const;

 private:
  explicit Tokenizer(std::unique_ptr<const TokenizerModel> model);
  std::unique_ptr<const TokenizerModel> model_;
};

}  // namespace csrm

#endif  // CSRM_SRC_TOKENIZER_H_
