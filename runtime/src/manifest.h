// manifest.json -> Manifest: every field the runtime needs, with its type and range checked.
// Not: the files it lists (artifact.h opens those). The text comes from artifact.cc and may be
// hostile: parsing is iterative (no stack growth), encoding is validated and the size is bounded.
#ifndef CSRM_SRC_MANIFEST_H_
#define CSRM_SRC_MANIFEST_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "csrm/status.h"
#include "render.h"
#include "render_chat.h"

namespace csrm {

constexpr size_t kMaxManifestBytes = 1u << 20;

// The numbers that keys and values are kept in: floats, or those of half precision, of 16 bits.
enum class KvType { kFloat, kHalf };

// Shape of the model's tensors; the names of the signature in docs/datapath.md.
struct ModelShape {
  int64_t layers = 0;               // L
  int64_t kv_heads = 0;             // Hkv
  int64_t head_dim = 0;             // D
  int64_t vocab_size = 0;           // rows of the embedding table
  int64_t max_positions = 0;        // of a decoder
  KvType kv_type = KvType::kFloat;  // of the graph that the engine loaded, not of the manifest

  size_t number_bytes() const { return kv_type == KvType::kHalf ? 2 : 4; }
  // Of one token in the key (or the value) of a prefix.
  size_t numbers_per_token() const { return static_cast<size_t>(layers * kv_heads * head_dim); }
  size_t bytes_per_token() const { return numbers_per_token() * number_bytes(); }
};

// compliance = sigmoid(a * reward + b); the graph computes it, the values are for information.
struct Calibration {
  double a = 1.0;
  double b = 0.0;
};

struct ManifestFile {
  std::string name;    // a plain file name: no separator, no "..", not hidden behind a link
  std::string sha256;  // 64 lower-case hexadecimal digits
  uint64_t bytes = 0;
};

// Least, usual and largest size of one axis of a call.
struct SizeRange {
  int64_t least = 0, usual = 0, most = 0;

  bool holds(int64_t size) const { return size >= least && size <= most; }
};

// The calls that a TensorRT engine was built for: batch, tokens, prefix and judged tokens.
struct EngineProfile {
  SizeRange batch, tokens, prefix, judged;  // B, T, P, J of docs/datapath.md
};

// A TensorRT engine among the artifact's files, written by `csrm export --tensorrt`.
struct TrtEngineFile {
  std::string file;
  std::string package;                     // that built it: "tensorrt" or "tensorrt_rtx"
  std::string version;                     // of the package
  std::string precision;                   // "fp16", "bf16" or "fp32"
  std::vector<std::string> architectures;  // "sm89"; none: those that the package takes by itself
  bool is_version_compatible = false;      // runs in later releases of the same major version
  std::vector<EngineProfile> profiles;     // at least one; their order is the engine's
};

struct Manifest {
  std::string name;
  std::vector<ManifestFile> files;
  bool is_causal = false;  // a decoder: the template is `chat`, else `tmpl`
  Template tmpl{};
  ChatPieces chat;
  ModelShape model;
  Calibration calibration;
  std::string portable_file;   // variants.portable
  std::string fused_file;      // variants.fused; empty when the artifact has none
  std::string int8_file;       // variants.int8; empty when the artifact has none
  std::string half_file;       // variants.half; empty when the artifact has none
  std::string cuda_file;       // variants.cuda; empty when the artifact has none
  bool is_int8_alike = false;  // int8_parity says that it scores as the others do
  bool is_half_alike = false;  // half_parity says the same
  double threshold = 0.5;
  std::vector<TrtEngineFile> trt_engines;  // the list "tensorrt"; most have none
};

// Parses and checks the text of a manifest.json. A field the runtime does not know is ignored.
// Errors: BadArtifact (not JSON, a field missing, repeated, of a wrong type or out of range),
// Unsupported (schema_version, template or backbone newer than this build).
Result<Manifest> parse_manifest(std::string_view json);

}  // namespace csrm

#endif  // CSRM_SRC_MANIFEST_H_
