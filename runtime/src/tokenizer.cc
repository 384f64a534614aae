// The tokenizer of tokenizer.h: parses the JSON, picks the model by its type, checks every text.
// Not: what the models do (wordpiece.cc, bpe_tokenizer.cc).
#include "tokenizer.h"

#include <utility>

#include "bpe_tokenizer.h"
#include "rapidjson/document.h"
#include "tokenizer_json.h"
#include "utf8.h"
#include "wordpiece.h"

namespace csrm {
namespace {

using JsonFlags = rapidjson::ParseFlag;
constexpr unsigned kJsonFlags =  // iterative: nesting costs heap, never stack
    JsonFlags::kParseIterativeFlag | JsonFlags::kParseValidateEncodingFlag;

Result<std::unique_ptr<const TokenizerModel>> read_model(std::string_view json) {
  rapidjson::Document document;
  document.Parse<kJsonFlags>(json.data(), json.size());
  if (document.HasParseError()) {
    return bad_tokenizer("not valid JSON at byte " + std::to_string(document.GetErrorOffset()));
  }
  if (!document.IsObject()) return bad_tokenizer("the top level must be an object");
  const Result<TypedObject> model = typed_object(document, "model");
  if (!model.ok()) return model.status();
  if (model.value().type == "WordPiece") return read_wordpiece(document);
  if (model.value().type == "BPE") return read_bpe(document);
  return unsupported_tokenizer("\"model\" is of another type than WordPiece and BPE");
}

}  // namespace

Result<Tokenizer> Tokenizer::from_json(std::string_view json) {
  auto model = read_model(json);
  if (!model.ok()) return model.status();
  return Tokenizer(std::move(model).value());
}

Tokenizer::Tokenizer(std::unique_ptr<const TokenizerModel> model) : model_(std::move(model)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Status Tokenizer::encode(std::string_view utf8, std::vector<int32_t>* ids) const {
  const size_t error = find_utf8_error(utf8);
  if (error != kNoUtf8Error) {
    return {Code::kBadUtf8, "the text is not valid UTF-8 at byte " + std::to_string(error) +
                                " of " + std::to_string(utf8.size()) +
                                "; decode it with its own encoding and pass UTF-8"};
  }
  model_->append_ids(utf8, ids);
  return Status::success();
}

size_t Tokenizer::vocab_size() const noexcept { return model_->vocab_size(); }

std::optional<int32_t> Tokenizer::id_of(std::string_view literal) const {
  return model_->id_of(literal);
}

}  // namespace csrm
