// A model file opened as an ONNX Runtime session, its signature checked: what the engines of ONNX
// Runtime share, whatever the device. Not: a run (ort_engine.h, bound_engine.h). Uses the engine's
// C API, which throws nothing; every handle of it is owned by an object here.
#ifndef CSRM_SRC_MODEL_SESSION_H_
#define CSRM_SRC_MODEL_SESSION_H_

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "csrm/status.h"
#include "engine.h"
#include "engine_library.h"
#include "manifest.h"

namespace csrm {

constexpr size_t kModelInputs = 7;
constexpr size_t kModelOutputs = 4;
extern const std::array<const char*, kModelInputs> kModelInputNames;
extern const std::array<const char*, kModelOutputs> kModelOutputNames;

// A handle of the C API, released with this object.
template <typename T>
class Handle {
 public:
  using Release = void(ORT_API_CALL*)(T*);
  explicit Handle(Release release) : release_(release) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  Handle(Handle&& other) noexcept : handle_(other.handle_), release_(other.release_) {
    other.handle_ = nullptr;
  }
  Handle& operator=(Handle&& other) noexcept {
    std::swap(handle_, other.handle_);
    std::swap(release_, other.release_);
    return *this;
  }
  ~Handle() {
    if (handle_ != nullptr) release_(handle_);
  }
  T* get() const { return handle_; }
  T** out() { return &handle_; }

 private:
  T* handle_ = nullptr;
  Release release_;
};

struct FreeValue {
  const OrtApi* api;
  void operator()(OrtValue* value) const { api->ReleaseValue(value); }
};
using OwnedValue = std::unique_ptr<OrtValue, FreeValue>;

// Adds to a session's options what a device needs: its provider and operators.
using SessionSetUp = std::function<Status(const OrtApi* api, OrtSessionOptions* options)>;

class ModelSession {
 public:
  // Opens `model_path` after `set_up` and checks inputs and outputs against the signature of
  // docs/datapath.md and `shape`. has_half_prefix: prefix_key and prefix_value may be fp16.
  // Errors: EngineFailed (the session cannot be made), BadArtifact (another signature), those of
  // `set_up`.
  static Result<std::unique_ptr<ModelSession>> open(EngineLibrary library,
                                                    const std::string& model_path,
                                                    const ModelShape& shape, bool has_half_prefix,
                                                    const EngineOptions& options,
                                                    const SessionSetUp& set_up);

  const OrtApi* api() const { return library_.api; }
  const std::string& version() const { return library_.version; }
  OrtSession* raw() const { return session_.get(); }
  const ModelShape& shape() const { return shape_; }
  // Element type of prefix_key and prefix_value.
  ONNXTensorElementDataType prefix_type() const { return prefix_type_; }

  // A tensor over memory of the caller that `memory` describes. Errors: EngineFailed.
  Result<OwnedValue> tensor(const OrtMemoryInfo* memory, const void* data, size_t n_bytes,
                            const std::vector<int64_t>& dims, ONNXTensorElementDataType type) const;

 private:
  ModelSession(EngineLibrary library, const ModelShape& shape);
  Status make(const std::string& model_path, const EngineOptions& options,
              const SessionSetUp& set_up);
  Status set_options(OrtSessionOptions* options, const EngineOptions& wanted) const;
  Status check_signature(bool has_half_prefix);
  Status check_tensor(bool is_input, size_t index, bool has_half_prefix);

  EngineLibrary library_;
  ModelShape shape_;
  Handle<OrtEnv> env_;  // declared before the session, so released after it
  Handle<OrtSession> session_;
  ONNXTensorElementDataType prefix_type_ = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
};

}  // namespace csrm

#endif  // CSRM_SRC_MODEL_SESSION_H_
