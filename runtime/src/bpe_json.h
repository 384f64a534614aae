// The parts of a tokenizer.json of model type BPE, checked. Not: encoding (bpe_tokenizer.cc).
// Only what equals one of the known forms is read; anything else is an error that names it, so that
// no option is silently left out.
#ifndef CSRM_SRC_BPE_JSON_H_
#define CSRM_SRC_BPE_JSON_H_

#include <cstdint>
#include <vector>

#include "bpe_merges.h"
#include "csrm/status.h"
#include "pre_tokens.h"
#include "rapidjson/document.h"
#include "tokenizer_json.h"

namespace csrm {

// Texts lie in the document.
struct BpeFile {
  SplitStyle split;
  bool normalises_nfc;
  bool ignores_merges;            // a word that is a token stays one, whatever the merges say
  std::vector<VocabEntry> vocab;  // distinct texts, distinct ids
  std::vector<BpeMerge> merges;   // by rank
  std::vector<VocabEntry> added;  // "added_tokens"; a text that `vocab` has too has the same id
};

// Errors: BadArtifact (missing or ill-typed fields, duplicates, a merge of unknown tokens),
// Unsupported (a normalizer, pre-tokenizer or option that this build does not run).
Result<BpeFile> read_bpe_file(const rapidjson::Value& document);

}  // namespace csrm

#endif  // CSRM_SRC_BPE_JSON_H_
