// TokenizerModel: what the kinds of tokenizer.json have in common. Its children are made by
// read_wordpiece (wordpiece.h) and read_bpe (bpe_tokenizer.h); tokenizer.h is what others use.
#ifndef CSRM_SRC_TOKENIZER_MODEL_H_
#define CSRM_SRC_TOKENIZER_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace csrm {

// Immutable, so thread-safe.
class TokenizerModel {
 public:
  virtual ~TokenizerModel() = default;

  // Appends the ids of `utf8`, which must be valid UTF-8, to `ids`.
  virtual void append_ids(std::string_view utf8, std::vector<int32_t>* ids) const = 0;

  // One more than the largest id of a token.
  virtual size_t vocab_size() const noexcept = 0;

  // Id of the token that the file spells `literal`.
  virtual std::optional<int32_t> id_of(std::string_view literal) const = 0;
};

}  // namespace csrm

#endif  // CSRM_SRC_TOKENIZER_MODEL_H_
