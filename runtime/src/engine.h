// One ONNX Runtime session: token ids and a prefix -> keys and values, rewards and compliances.
// Not: batching (batch.h) or caching (prefix_cache.h). The engine's library is loaded at run time,
// so csrm links to no engine; nothing of it is unloaded again (its threads may outlive a session).
#ifndef CSRM_SRC_ENGINE_H_
#define CSRM_SRC_ENGINE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "csrm/status.h"
#include "manifest.h"

struct OrtApi;
struct OrtValue;

namespace csrm {

struct EngineOptions {
  std::string library;          // path of libonnxruntime; empty = the loader's search path
  int n_threads = 1;            // threads inside one operator; at least 1
  bool allow_spinning = false;  // threads spin while idle
};

// Rows encoded in one engine call; all of them read the same prefix.
struct EncodeInput {
  int64_t n_rows = 0;                                                  // B
  int64_t row_tokens = 0;                                              // T, the longest row
  int64_t n_pooled = 0;                                                // J, at least 1
  int64_t n_prefix_tokens = 0;                                         // P, may be 0
  std::vector<int64_t> input_ids, position_ids, segment_ids, visible;  // [B, T]
  std::vector<int64_t> pooled_at;                                      // [B, J], -1 = none
  const void* prefix_key = nullptr;    // [L, Hkv, P, D] of kv_type; read only while encode() runs
  const void* prefix_value = nullptr;  // [L, Hkv, P, D]
  bool want_key_value = false;
  bool want_reward = false;
};

// Results in the engine's own memory, freed with this object. What was not wanted is null.
class EncodeOutput {
 public:
  const void* key = nullptr;          // [B, L, Hkv, T, D] of kv_type
  const void* value = nullptr;        // [B, L, Hkv, T, D]
  const float* reward = nullptr;      // [B, J], NaN where pooled_at is -1
  const float* compliance = nullptr;  // [B, J], NaN where pooled_at is -1

 private:
  friend class Engine;
  struct Free {
    const OrtApi* api;
    void operator()(OrtValue* value) const;
  };
  std::vector<std::unique_ptr<OrtValue, Free>> owned_;
};

class Engine {
 public:
  // Loads the library and the model at `model_path`, and checks the model's inputs and outputs
  // against the signature of docs/datapath.md and `shape`, whose kv_type is ignored: keys and
  // values have that of the model. `custom_operators` registers the
  // operators of kernels/, which model.fused.onnx needs.
  // Errors: EngineUnavailable (no library, or older than 1.17), EngineFailed (the session cannot
  // be made), BadArtifact (another signature).
  static Result<std::unique_ptr<Engine>> load(const std::string& model_path,
                                              const ModelShape& shape, bool custom_operators,
                                              const EngineOptions& options);
  ~Engine();

  // Runs the model once. Thread-safe without locks. Errors: EngineFailed (the engine's message, or
  // an output of an unexpected shape). Does not look at the values.
  Status encode(const EncodeInput& input, EncodeOutput* output) const;

  // The numbers of the model's keys and values.
  KvType kv_type() const;

  // Version of the loaded library ("1.32.0").
  const std::string& version() const;

 private:
  struct Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace csrm

#endif  // CSRM_SRC_ENGINE_H_
