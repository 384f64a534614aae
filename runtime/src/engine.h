// Engine: token ids and a prefix -> keys and values, rewards and compliances, on some device.
// Not: which engine is loaded (engine_choice.h), batching (batch.h) or caching (prefix_cache.h).
// Children: ort_engine.h. Inputs and outputs are in host memory whatever the device; an engine may
// keep copies of prefixes in a form of its own, beside the Prefix (device_prefix.h).
#ifndef CSRM_SRC_ENGINE_H_
#define CSRM_SRC_ENGINE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "csrm/status.h"
#include "device_prefix.h"
#include "manifest.h"

namespace csrm {

// Where a model runs. kAuto is a wish only: no engine has it.
enum class Device : int { kAuto = 0, kCpu = 1, kCuda = 2, kTensorRt = 3 };

// "auto", "cpu", "cuda" or "tensorrt".
const char* device_name(Device device);

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
  // [L, Hkv, P, D] of the engine's kv_type; read only while encode() runs
  const void* prefix_key = nullptr;
  const void* prefix_value = nullptr;
  // Where an engine may keep its own copy of the prefix for the next call; null: nowhere.
  const DevicePrefixSlot* prefix_slot = nullptr;
  bool want_key_value = false;
  bool want_reward = false;
};

// Results in host memory, freed with this object. What was not wanted is null.
struct EncodeOutput {
  const void* key = nullptr;                       // [B, L, Hkv, T, D] of the engine's kv_type
  const void* value = nullptr;                     // [B, L, Hkv, T, D]
  const float* reward = nullptr;                   // [B, J], NaN where pooled_at is -1
  const float* compliance = nullptr;               // [B, J], NaN where pooled_at is -1
  std::vector<std::shared_ptr<const void>> owned;  // what the pointers above point into
};

class Engine {
 public:
  virtual ~Engine() = default;

  // Runs the model once. Thread-safe; an engine with one stream lets callers wait for each other.
  // Errors: EngineFailed (the engine's message, or an output of an unexpected shape). Does not look
  // at the values.
  virtual Status encode(const EncodeInput& input, EncodeOutput* output) const = 0;

  // The numbers of keys and values, in prefixes as well, in host memory.
  virtual KvType kv_type() const = 0;

  // Version of the library that runs the model ("1.32.0").
  virtual const std::string& version() const = 0;

  // Where the model runs; never kAuto.
  virtual Device device() const = 0;

 protected:
  Engine() = default;
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
};

}  // namespace csrm

#endif  // CSRM_SRC_ENGINE_H_
