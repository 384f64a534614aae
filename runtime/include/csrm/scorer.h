// csrm in C++: load an artifact once, then score conversations against configs from any thread.
// Not: parsing YAML or JSON (Python's csrm.config), HTTP, or the C ABI (csrm/csrm.h).
//
//   auto scorer = csrm::Scorer::load("models/csrm-mini", {});
//   auto score = scorer.value()->score(config, conversation, {});
//   if (score.ok() && score.value().verdict == csrm::Verdict::kCompliant) forward();
//
// Nothing here throws. Nothing is ever truncated. A failure is a Status and never a score; treat
// the verdict of a failed call as unknown.
#ifndef CSRM_SCORER_H_
#define CSRM_SCORER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "csrm/status.h"
#include "csrm/types.h"
#include "csrm/visibility.h"

namespace csrm {

// What was loaded. Constant for the life of a Scorer.
struct ScorerInfo {
  std::string name;             // of the artifact
  std::string variant;          // "portable", "fused", "int8" or "cuda"
  std::string device;           // where the model runs: "cpu", "cuda" or "tensorrt"
  std::string device_note;      // why device = "auto" left the GPU out, if it tried it; else empty
  std::string kernels;          // instruction set of csrm's operators, and which failed their check
  std::string backbone;         // "encoder" or "decoder"
  std::string artifact_digest;  // SHA-256 of manifest.json, 64 hexadecimal digits
  std::string engine_version;   // of ONNX Runtime
  int n_threads = 0;            // inside one engine call
  double threshold = 0.0;       // the manifest's; a Config carries its own
  double calibration_a = 0.0;   // compliance = sigmoid(a * reward + b)
  double calibration_b = 0.0;
  int64_t layers = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab_size = 0;
  size_t max_block_tokens = 0;  // a longer rule or turn becomes several blocks
  size_t max_positions = 0;  // of a decoder: tokens of config and conversation; 0 = no such limit
};

// Counts of the prefix cache, since loading (a clear does not reset them).
struct CacheStats {
  uint64_t n_hits = 0;
  uint64_t n_misses = 0;
  uint64_t n_evictions = 0;
  size_t n_entries = 0;
  size_t n_tokens = 0;    // now kept
  size_t max_tokens = 0;  // ScorerOptions::cache_tokens
};

// All functions but load and the destructor may be called from several threads at once without
// locks; a Scorer must outlive the calls made on it.
class CSRM_API Scorer {
 public:
  // A Scorer for the artifact in folder `artifact_dir`, every file verified against its digest.
  // Unless ORT_DISABLE_TELEMETRY is in the environment it is set to 1 there, so that the engine
  // reports nothing to anybody; other threads must not read the environment meanwhile.
  // Errors: BadArtifact, DigestMismatch, Unsupported (artifact); EngineUnavailable, EngineFailed
  // (engine); BadArgument (an option outside its range); LimitExceeded (out of memory).
  static Result<std::unique_ptr<Scorer>> load(const std::string& artifact_dir,
                                              const ScorerOptions& options) noexcept;
  ~Scorer();

  // Reward, compliance and verdict of the judged turns of `conversation` under `config`:
  // compliant if and only if compliance >= config.threshold. The order of rules does not change a
  // score beyond the rounding of float addition (about 1e-6), and a repeated rule is allowed (it
  // weighs more). The same input gives the same score whatever is in the cache or in the batch,
  // within the same rounding. A decoder reads the rules in their order, which may change a score.
  // Errors of the config: EmptyConfig, BadUtf8, LimitExceeded, BadArgument (threshold).
  // Errors of the conversation: EmptyConversation, BadUtf8, UnknownRole, LimitExceeded.
  // Either: EngineFailed, NonFinite, Internal.
  Result<Score> score(const Config& config, const Conversation& conversation,
                      const ScoreOptions& options) const noexcept;

  // One Result per conversation, in order: one bad conversation gets its own error and the others
  // are scored. The outer Result fails only for the config, the options or the batch as a whole.
  // With options.explain each conversation is also scored under every rule alone, which costs one
  // more pass per rule.
  Result<std::vector<Result<Score>>> score_batch(const Config& config,
                                                 const std::vector<Conversation>& conversations,
                                                 const ScoreOptions& options) const noexcept;

  // Tokens that `text` (UTF-8) becomes, control ids not counted. Errors: BadUtf8.
  Result<size_t> count_tokens(std::string_view text) const noexcept;

  const ScorerInfo& info() const noexcept;
  CacheStats cache_stats() const noexcept;

  // Forgets every cached prefix and rendered config. Scores do not change.
  void clear_cache() noexcept;

  // Checks the cache's invariants. Errors: Internal, naming the broken one.
  Status check_integrity() const noexcept;

 private:
  friend class JobStages;
  struct Impl;
  explicit Scorer(std::unique_ptr<Impl> impl) noexcept;
  std::unique_ptr<Impl> impl_;
};

}  // namespace csrm

#endif  // CSRM_SCORER_H_
