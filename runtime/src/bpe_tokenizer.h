// Byte-level BPE, the model of decoders, equal to Hugging Face's for the files of GPT-2, SmolLM2,
// Qwen2 to Qwen3 and Llama 3. Not: checking UTF-8 or parsing JSON (tokenizer.cc).
// The file's "added_tokens" are never looked for in a text: "<|im_start|>" in a message is plain
// text. Only id_of knows them.
#ifndef CSRM_SRC_BPE_TOKENIZER_H_
#define CSRM_SRC_BPE_TOKENIZER_H_

#include <memory>

#include "csrm/status.h"
#include "rapidjson/document.h"
#include "tokenizer_model.h"

namespace csrm {

// Reads a whole tokenizer.json whose "model" is of type BPE. Errors: as read_bpe_file (bpe_json.h).
Result<std::unique_ptr<const TokenizerModel>> read_bpe(const rapidjson::Value& document);

}  // namespace csrm

#endif  // CSRM_SRC_BPE_TOKENIZER_H_
