// WordPiece with BERT normalisation, the model of encoders, equal to Hugging Face's.
// Not: checking UTF-8 or parsing JSON (tokenizer.cc).
#ifndef CSRM_SRC_WORDPIECE_H_
#define CSRM_SRC_WORDPIECE_H_

#include <memory>

#include "csrm/status.h"
#include "rapidjson/document.h"
#include "tokenizer_model.h"

namespace csrm {

// Reads a whole tokenizer.json whose "model" is of type WordPiece. Errors: BadArtifact (missing or
// ill-typed fields), Unsupported (a normalizer or pre-tokenizer other than BERT's).
Result<std::unique_ptr<const TokenizerModel>> read_wordpiece(const rapidjson::Value& document);

}  // namespace csrm

#endif  // CSRM_SRC_WORDPIECE_H_
