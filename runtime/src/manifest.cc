// Field by field reading of manifest.json; the first thing wrong is the one reported.
#include "manifest.h"

#include <algorithm>
#include <iterator>

#include "rapidjson/document.h"

namespace csrm {
namespace {

using Value = rapidjson::Value;

constexpr int64_t kSchemaVersion = 1;
constexpr const char* kBlocks = "csrm-blocks-1";  // of an encoder
constexpr const char* kChat = "csrm-chat-1";      // of a decoder
constexpr const char* kRoles[4] = {"system", "user", "assistant", "tool"};
constexpr size_t kMaxPieces = 64;
constexpr size_t kMaxPieceBytes = 1u << 16;
constexpr size_t kMaxNameBytes = 255;
constexpr size_t kMaxFiles = 64;
constexpr size_t kMaxEngines = 32;   // of TensorRT
constexpr size_t kMaxProfiles = 64;  // of one of them

std::string between(double low, double high) {
  return " must be between " + std::to_string(low) + " and " + std::to_string(high);
}

// The members of one JSON object. Keeps the first error in a Status shared by all of them, so that
// reading is a plain list of fields and the error is looked at once.
class Fields {
 public:
  Fields(const Value* object, std::string path, Status* status)
      : object_(object), path_(std::move(path)), status_(status) {}

  const Value* optional(const char* key) const {
    if (object_ == nullptr) return nullptr;
    const Value* found = nullptr;
    for (auto it = object_->MemberBegin(); it != object_->MemberEnd(); ++it) {
      if (it->name != key) continue;
      if (found != nullptr) return fail(key, " appears twice");
      found = &it->value;
    }
    return found;
  }

  const Value* required(const char* key) const {
    const Value* value = optional(key);
    return value != nullptr || object_ == nullptr ? value : fail(key, " is missing");
  }

  Fields object(const char* key) const {
    const Value* value = required(key);
    if (value != nullptr && !value->IsObject()) value = fail(key, " must be an object");
    return Fields(value, path_ + key + ".", status_);
  }

  int64_t integer(const char* key, int64_t low, int64_t high) const {
    const Value* value = required(key);
    if (value == nullptr) return low;
    if (!value->IsInt64() || value->GetInt64() < low || value->GetInt64() > high) {
      fail(key, " must be an integer from " + std::to_string(low) + " to " + std::to_string(high));
      return low;
    }
    return value->GetInt64();
  }

  bool flag(const char* key) const {
    const Value* value = required(key);
    if (value == nullptr) return false;
    if (!value->IsBool()) fail(key, " must be true or false");
    return value->IsBool() && value->GetBool();
  }

  // The elements of a list of objects, at most `most`.
  std::vector<Fields> objects(const char* key, size_t most) const {
    std::vector<Fields> list;
    const Value* value = required(key);
    if (value == nullptr) return list;
    if (!value->IsArray() || value->Size() > most) {
      fail(key, " must be a list of at most " + std::to_string(most) + " objects");
      return list;
    }
    for (const Value& element : value->GetArray()) {
      const std::string path = path_ + key + "[" + std::to_string(list.size()) + "]";
      if (!element.IsObject()) fail(path.substr(path_.size()), " must be an object");
      list.emplace_back(element.IsObject() ? &element : nullptr, path + ".", status_);
    }
    return list;
  }

  double number(const char* key, double low, double high) const {
    const Value* value = required(key);
    if (value == nullptr) return low;
    if (!value->IsNumber() || !(value->GetDouble() >= low && value->GetDouble() <= high)) {
      fail(key, between(low, high));
      return low;
    }
    return value->GetDouble();
  }

  std::string text(const char* key, size_t max_bytes) const {
    return text_of(required(key), key, max_bytes);
  }

  std::string optional_text(const char* key, size_t max_bytes) const {
    return text_of(optional(key), key, max_bytes);
  }

  // Records BadArtifact, if it is the first error, and returns nullptr.
  const Value* fail(const std::string& key, const std::string& problem) const {
    if (status_->ok()) {
      *status_ = {Code::kBadArtifact,
                  "manifest.json: " + path_ + key + problem + "; export the artifact again"};
    }
    return nullptr;
  }

  const Value* members() const { return object_; }
  Status* status() const { return status_; }

 private:
  std::string text_of(const Value* value, const char* key, size_t max_bytes) const {
    if (value == nullptr) return {};
    if (!value->IsString() || value->GetStringLength() == 0 ||
        value->GetStringLength() > max_bytes) {
      fail(key, " must be a string of 1 to " + std::to_string(max_bytes) + " bytes");
      return {};
    }
    return {value->GetString(), value->GetStringLength()};
  }

  const Value* object_;
  std::string path_;
  Status* status_;
};

bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name.size() <= kMaxNameBytes && name != "." && name != "manifest.json" &&
         name.find("..") == std::string::npos &&
         name.find_first_of(std::string("/\\\0", 3)) == std::string::npos;
}

bool is_hex_digest(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

std::vector<ManifestFile> read_files(const Fields& files) {
  std::vector<ManifestFile> list;
  if (files.members() == nullptr) return list;
  if (files.members()->MemberCount() > kMaxFiles) {
    files.fail("*", " lists more than " + std::to_string(kMaxFiles) + " files");
    return list;
  }
  for (auto it = files.members()->MemberBegin(); it != files.members()->MemberEnd(); ++it) {
    ManifestFile file;
    file.name.assign(it->name.GetString(), it->name.GetStringLength());
    if (!is_plain_file_name(file.name)) {
      files.fail("[" + std::to_string(list.size()) + "]",
                 " is not a plain file name (separators and '..' are refused)");
      return list;
    }
    const Fields entry = files.object(file.name.c_str());
    file.sha256 = entry.text("sha256", 64);
    file.bytes = static_cast<uint64_t>(entry.integer("bytes", 0, int64_t{1} << 40));
    if (!is_hex_digest(file.sha256)) {
      files.fail(file.name, ".sha256 must be 64 lower-case hexadecimal digits");
    }
    list.push_back(std::move(file));
  }
  return list;
}

Template read_template(const Fields& fields, int64_t vocab_size) {
  Template tmpl{};
  const auto id = [&](const Fields& from, const char* key) {
    return static_cast<int32_t>(from.integer(key, 0, vocab_size - 1));
  };
  tmpl.cls = id(fields, "cls");
  tmpl.sep = id(fields, "sep");
  tmpl.rule = id(fields, "rule");
  tmpl.name_end = id(fields, "name_end");
  const Fields roles = fields.object("roles");
  for (int i = 0; i < 4; ++i) tmpl.roles[i] = id(roles, kRoles[i]);
  tmpl.max_block_tokens = static_cast<int32_t>(fields.integer("max_block_tokens", 16, 1024));
  tmpl.n_turn_indices = static_cast<int32_t>(fields.integer("n_turn_indices", 1, 4096));
  int32_t ids[8] = {tmpl.cls,      tmpl.sep,      tmpl.rule,     tmpl.name_end,
                    tmpl.roles[0], tmpl.roles[1], tmpl.roles[2], tmpl.roles[3]};
  std::sort(std::begin(ids), std::end(ids));
  if (std::adjacent_find(std::begin(ids), std::end(ids)) != std::end(ids)) {
    fields.fail("cls", " and the other control ids must all be different");
  }
  return tmpl;
}

Pieces read_pieces(const Fields& fields, const char* key, int64_t vocab_size) {
  Pieces pieces;
  const Value* list = fields.required(key);
  if (list == nullptr) return pieces;
  const std::string problem =
      " must be a list of at most " + std::to_string(kMaxPieces) + " token ids and texts";
  if (!list->IsArray() || list->Size() > kMaxPieces) {
    fields.fail(key, problem);
    return pieces;
  }
  for (const Value& piece : list->GetArray()) {
    if (piece.IsInt() && piece.GetInt() >= 0 && piece.GetInt() < vocab_size) {
      pieces.emplace_back(piece.GetInt());
    } else if (piece.IsString() && piece.GetStringLength() <= kMaxPieceBytes) {
      pieces.emplace_back(std::string(piece.GetString(), piece.GetStringLength()));
    } else {
      fields.fail(key, problem);
      return pieces;
    }
  }
  return pieces;
}

ChatPieces read_chat(const Fields& fields, int64_t vocab_size) {
  ChatPieces chat;
  chat.config_head = read_pieces(fields, "config_head", vocab_size);
  chat.config_end = read_pieces(fields, "config_end", vocab_size);
  chat.turn_end = read_pieces(fields, "turn_end", vocab_size);
  chat.cue = read_pieces(fields, "cue", vocab_size);
  const Fields roles = fields.object("roles");
  for (int i = 0; i < 4; ++i) chat.roles[i] = read_pieces(roles, kRoles[i], vocab_size);
  chat.max_block_tokens = static_cast<int32_t>(fields.integer("max_block_tokens", 16, 1024));
  return chat;
}

ModelShape read_model(const Fields& fields, bool is_causal) {
  ModelShape shape;
  shape.layers = fields.integer("layers", 1, 256);
  shape.kv_heads = fields.integer("kv_heads", 1, 1024);
  shape.head_dim = fields.integer("head_dim", 1, 1024);
  shape.vocab_size = fields.integer("vocab_size", 1, 1 << 24);
  if (is_causal) shape.max_positions = fields.integer("max_positions", 16, 1 << 24);
  const Fields verbalizers = fields.object("verbalizers");
  verbalizers.integer("safe", 1, 1024);
  verbalizers.integer("unsafe", 1, 1024);
  return shape;
}

void check_variant(const Fields& variants, const Manifest& manifest, const char* key,
                   const std::string& file) {
  for (const ManifestFile& listed : manifest.files) {
    if (listed.name == file) return;
  }
  variants.fail(key, " names a file that \"files\" does not list");
}

// Three rising sizes of a profile.
SizeRange read_range(const Fields& profile, const char* key, int64_t low) {
  constexpr int64_t kMost = int64_t{1} << 20;
  SizeRange range;
  const Value* list = profile.required(key);
  if (list == nullptr) return range;
  int64_t* const sizes[] = {&range.least, &range.usual, &range.most};
  bool good = list->IsArray() && list->Size() == std::size(sizes);
  for (rapidjson::SizeType i = 0; good && i < std::size(sizes); ++i) {
    const Value& size = (*list)[i];
    good = size.IsInt64() && size.GetInt64() >= low && size.GetInt64() <= kMost;
    if (good) low = *sizes[i] = size.GetInt64();
  }
  if (!good) profile.fail(key, " must be three rising sizes up to " + std::to_string(kMost));
  return range;
}

std::vector<std::string> read_architectures(const Fields& engine) {
  constexpr size_t kMost = 32, kMostBytes = 32;
  std::vector<std::string> names;
  const Value* list = engine.required("architectures");
  if (list == nullptr) return names;
  bool good = list->IsArray() && list->Size() <= kMost;
  for (rapidjson::SizeType i = 0; good && i < list->Size(); ++i) {
    const Value& name = (*list)[i];
    good = name.IsString() && name.GetStringLength() <= kMostBytes;
    if (good) names.emplace_back(name.GetString(), name.GetStringLength());
  }
  if (!good) engine.fail("architectures", " must be a short list of names");
  return names;
}

std::vector<TrtEngineFile> read_trt_engines(const Fields& root, const Manifest& manifest) {
  std::vector<TrtEngineFile> engines;
  if (root.optional("tensorrt") == nullptr) return engines;
  for (const Fields& fields : root.objects("tensorrt", kMaxEngines)) {
    TrtEngineFile engine;
    engine.file = fields.text("file", kMaxNameBytes);
    engine.package = fields.text("package", 64);
    engine.version = fields.text("version", 64);
    engine.precision = fields.text("precision", 16);
    engine.architectures = read_architectures(fields);
    engine.is_version_compatible = fields.flag("is_version_compatible");
    for (const Fields& profile : fields.objects("profiles", kMaxProfiles)) {
      engine.profiles.push_back({read_range(profile, "batch", 1), read_range(profile, "tokens", 1),
                                 read_range(profile, "prefix", 0),
                                 read_range(profile, "judged", 1)});
    }
    if (engine.profiles.empty()) fields.fail("profiles", " must not be empty");
    check_variant(fields, manifest, "file", engine.file);
    engines.push_back(std::move(engine));
  }
  return engines;
}

Status check_version(const Fields& root) {
  const int64_t version = root.integer("schema_version", 1, int64_t{1} << 31);
  if (root.status()->ok() && version != kSchemaVersion) {
    return {Code::kUnsupported, "manifest.json: schema_version is " + std::to_string(version) +
                                    "; this build reads " + std::to_string(kSchemaVersion) +
                                    "; install a newer csrm"};
  }
  return *root.status();
}

// The template's id and the backbone it is for: two pairs are known.
Status read_kind(const Fields& tmpl, const Fields& model, bool* is_causal) {
  const std::string id = tmpl.text("id", 64);
  const std::string backbone = model.text("backbone", 64);
  if (!tmpl.status()->ok()) return *tmpl.status();
  *is_causal = id == kChat;
  if ((*is_causal || id == kBlocks) && backbone == (*is_causal ? "decoder" : "encoder")) {
    return Status::success();
  }
  return {Code::kUnsupported,
          std::string("manifest.json: this build knows the template ") + kBlocks +
              " for the backbone encoder and " + kChat +
              " for decoder, and this artifact has neither; install a newer csrm"};
}

// Whether what csrm.export.variant_parity measured is within what a variant may change.
bool is_alike(const Fields& root, const char* key) {
  constexpr double kMaxComplianceChange = 0.01, kMaxF1Change = 0.003;
  if (root.optional(key) == nullptr) return false;
  const Fields parity = root.object(key);
  return parity.number("compliance_p99", 0.0, 1.0) <= kMaxComplianceChange &&
         parity.number("f1_change", 0.0, 1.0) <= kMaxF1Change;
}

void read_fields(const Fields& root, const Fields& tmpl, const Fields& model, Manifest* manifest) {
  manifest->name = root.text("name", 128);
  root.text("licence", 128);
  manifest->files = read_files(root.object("files"));
  manifest->model = read_model(model, manifest->is_causal);
  if (manifest->is_causal) {
    manifest->chat = read_chat(tmpl, manifest->model.vocab_size);
  } else {
    manifest->tmpl = read_template(tmpl, manifest->model.vocab_size);
  }
  const Fields calibration = root.object("calibration");
  manifest->calibration.a = calibration.number("a", 1e-6, 1e6);
  manifest->calibration.b = calibration.number("b", -1e6, 1e6);
  manifest->threshold = root.number("threshold", 0.0, 1.0);
  const Fields variants = root.object("variants");
  manifest->portable_file = variants.text("portable", kMaxNameBytes);
  manifest->fused_file = variants.optional_text("fused", kMaxNameBytes);
  check_variant(variants, *manifest, "portable", manifest->portable_file);
  if (!manifest->fused_file.empty()) {
    check_variant(variants, *manifest, "fused", manifest->fused_file);
  }
  manifest->int8_file = variants.optional_text("int8", kMaxNameBytes);
  if (!manifest->int8_file.empty()) {
    check_variant(variants, *manifest, "int8", manifest->int8_file);
  }
  manifest->half_file = variants.optional_text("half", kMaxNameBytes);
  if (!manifest->half_file.empty()) {
    check_variant(variants, *manifest, "half", manifest->half_file);
  }
  manifest->cuda_file = variants.optional_text("cuda", kMaxNameBytes);
  if (!manifest->cuda_file.empty()) {
    check_variant(variants, *manifest, "cuda", manifest->cuda_file);
  }
  manifest->is_int8_alike = is_alike(root, "int8_parity");
  manifest->is_half_alike = is_alike(root, "half_parity");
  check_variant(root, *manifest, "tokenizer.json", "tokenizer.json");
  manifest->trt_engines = read_trt_engines(root, *manifest);
}

}  // namespace

Result<Manifest> parse_manifest(std::string_view json) {
  if (json.size() > kMaxManifestBytes) {
    return {Code::kBadArtifact, "manifest.json has " + std::to_string(json.size()) +
                                    " bytes; limit is " + std::to_string(kMaxManifestBytes) +
                                    "; export the artifact again"};
  }
  rapidjson::Document document;
  constexpr unsigned kFlags =
      rapidjson::kParseIterativeFlag | rapidjson::kParseValidateEncodingFlag;
  document.Parse<kFlags>(json.data(), json.size());
  if (document.HasParseError() || !document.IsObject()) {
    return {Code::kBadArtifact, "manifest.json is not a JSON object in UTF-8 (byte " +
                                    std::to_string(document.GetErrorOffset()) +
                                    "); export the artifact again"};
  }
  Status status;
  const Fields root(&document, "", &status);
  if (Status bad = check_version(root); !bad.ok()) return bad;
  const Fields tmpl = root.object("template");
  const Fields model = root.object("model");
  Manifest manifest;
  if (Status bad = read_kind(tmpl, model, &manifest.is_causal); !bad.ok()) return bad;
  read_fields(root, tmpl, model, &manifest);
  if (!status.ok()) return status;
  return manifest;
}

}  // namespace csrm
