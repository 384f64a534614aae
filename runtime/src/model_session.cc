// Options, opening and the signature check; see model_session.h.
#include "model_session.h"

#include <utility>

namespace csrm {

const std::array<const char*, kModelInputs> kModelInputNames = {
    "input_ids", "position_ids", "segment_ids", "visible",
    "pooled_at", "prefix_key",   "prefix_value"};
const std::array<const char*, kModelOutputs> kModelOutputNames = {"key", "value", "reward",
                                                                  "compliance"};

namespace {

constexpr int64_t kAny = -1;
constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;

struct Tensor {
  const char* name;
  ONNXTensorElementDataType type;
  std::vector<int64_t> dims;  // kAny where the call decides
};

std::vector<Tensor> signature_inputs(const ModelShape& shape) {
  constexpr auto kInt = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
  const std::vector<int64_t> prefix = {shape.layers, shape.kv_heads, kAny, shape.head_dim};
  std::vector<Tensor> inputs;
  for (size_t i = 0; i < 5; ++i) inputs.push_back({kModelInputNames[i], kInt, {kAny, kAny}});
  inputs.push_back({kModelInputNames[5], kFloat, prefix});
  inputs.push_back({kModelInputNames[6], kFloat, prefix});
  return inputs;
}

std::vector<Tensor> signature_outputs(const ModelShape& shape) {
  const std::vector<int64_t> kv = {kAny, shape.layers, shape.kv_heads, kAny, shape.head_dim};
  return {{kModelOutputNames[0], kFloat, kv},
          {kModelOutputNames[1], kFloat, kv},
          {kModelOutputNames[2], kFloat, {kAny, kAny}},
          {kModelOutputNames[3], kFloat, {kAny, kAny}}};
}

// True where the model's dimension is free or what the signature says.
bool dims_agree(const std::vector<int64_t>& expected, const std::vector<int64_t>& actual) {
  if (expected.size() != actual.size()) return false;
  for (size_t i = 0; i < expected.size(); ++i) {
    if (actual[i] > 0 && actual[i] != expected[i]) return false;
  }
  return true;
}

}  // namespace

ModelSession::ModelSession(EngineLibrary library, const ModelShape& shape)
    : library_(std::move(library)),
      shape_(shape),
      env_(api()->ReleaseEnv),
      session_(api()->ReleaseSession) {}

Status ModelSession::set_options(OrtSessionOptions* options, const EngineOptions& wanted) const {
  const OrtApi* api = this->api();
  const struct {
    const char* key;
    const char* value;
  } entries[] = {
      // Folds int8 weights to fp32 at load instead of running quantised operators.
      {"session.disable_quant_qdq", "1"},
      {"session.intra_op.allow_spinning", wanted.allow_spinning ? "1" : "0"},
  };
  Status status =
      take_status(api, api->SetSessionGraphOptimizationLevel(options, ORT_ENABLE_ALL), "options");
  if (!status.ok()) return status;
  status = take_status(api, api->SetIntraOpNumThreads(options, wanted.n_threads), "options");
  if (!status.ok()) return status;
  status = take_status(api, api->SetInterOpNumThreads(options, 1), "options");
  if (!status.ok()) return status;
  // Memory patterns are kept per input shape, and here every call may have another shape.
  status = take_status(api, api->DisableMemPattern(options), "options");
  if (!status.ok()) return status;
  for (const auto& entry : entries) {
    status =
        take_status(api, api->AddSessionConfigEntry(options, entry.key, entry.value), "options");
    if (!status.ok()) return status;
  }
  return Status::success();
}

Status ModelSession::make(const std::string& model_path, const EngineOptions& wanted,
                          const SessionSetUp& set_up) {
  const OrtApi* api = this->api();
  // Errors come back as statuses; anything less than fatal on stderr would only repeat them.
  Status status =
      take_status(api, api->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "csrm", env_.out()), "engine");
  if (!status.ok()) return status;
  Handle<OrtSessionOptions> options(api->ReleaseSessionOptions);
  status = take_status(api, api->CreateSessionOptions(options.out()), "options");
  if (!status.ok()) return status;
  status = set_options(options.get(), wanted);
  if (!status.ok()) return status;
  status = set_up(api, options.get());
  if (!status.ok()) return status;
  return take_status(
      api, api->CreateSession(env_.get(), model_path.c_str(), options.get(), session_.out()),
      "the model cannot be loaded");
}

Result<std::unique_ptr<ModelSession>> ModelSession::open(
    EngineLibrary library, const std::string& model_path, const ModelShape& shape,
    bool has_half_prefix, const EngineOptions& options, const SessionSetUp& set_up) {
  std::unique_ptr<ModelSession> made(new ModelSession(std::move(library), shape));
  if (Status bad = made->make(model_path, options, set_up); !bad.ok()) return bad;
  if (Status bad = made->check_signature(has_half_prefix); !bad.ok()) return bad;
  return made;
}

Result<OwnedValue> ModelSession::tensor(const OrtMemoryInfo* memory, const void* data,
                                        size_t n_bytes, const std::vector<int64_t>& dims,
                                        ONNXTensorElementDataType type) const {
  OrtValue* made = nullptr;
  // The C API takes a mutable pointer; whether it is written to is for the caller to say.
  Status status =
      take_status(api(),
                  api()->CreateTensorWithDataAsOrtValue(memory, const_cast<void*>(data), n_bytes,
                                                        dims.data(), dims.size(), type, &made),
                  "engine tensor");
  if (!status.ok()) return status;
  return OwnedValue(made, FreeValue{api()});
}

Status ModelSession::check_signature(bool has_half_prefix) {
  const OrtApi* api = this->api();
  size_t n_inputs = 0, n_outputs = 0;
  Status status =
      take_status(api, api->SessionGetInputCount(session_.get(), &n_inputs), "model inputs");
  if (!status.ok()) return status;
  status =
      take_status(api, api->SessionGetOutputCount(session_.get(), &n_outputs), "model outputs");
  if (!status.ok()) return status;
  if (n_inputs != kModelInputs || n_outputs != kModelOutputs) {
    return {Code::kBadArtifact, "the model has " + std::to_string(n_inputs) + " inputs and " +
                                    std::to_string(n_outputs) +
                                    " outputs; csrm's signature has 7 and 4; export it again"};
  }
  for (size_t i = 0; i < n_inputs; ++i) {
    if (Status bad = check_tensor(true, i, has_half_prefix); !bad.ok()) return bad;
  }
  for (size_t i = 0; i < n_outputs; ++i) {
    if (Status bad = check_tensor(false, i, false); !bad.ok()) return bad;
  }
  return Status::success();
}

Status ModelSession::check_tensor(bool is_input, size_t index, bool has_half_prefix) {
  const OrtApi* api = this->api();
  const std::vector<Tensor> expected =
      is_input ? signature_inputs(shape_) : signature_outputs(shape_);
  OrtAllocator* allocator = nullptr;
  Status status = take_status(api, api->GetAllocatorWithDefaultOptions(&allocator), "allocator");
  if (!status.ok()) return status;
  char* raw_name = nullptr;
  status =
      take_status(api,
                  is_input ? api->SessionGetInputName(session_.get(), index, allocator, &raw_name)
                           : api->SessionGetOutputName(session_.get(), index, allocator, &raw_name),
                  "model signature");
  if (!status.ok()) return status;
  const std::string name = raw_name;
  allocator->Free(allocator, raw_name);
  Handle<OrtTypeInfo> type(api->ReleaseTypeInfo);
  status = take_status(api,
                       is_input ? api->SessionGetInputTypeInfo(session_.get(), index, type.out())
                                : api->SessionGetOutputTypeInfo(session_.get(), index, type.out()),
                       "model signature");
  if (!status.ok()) return status;
  const OrtTensorTypeAndShapeInfo* info = nullptr;  // owned by `type`
  status = take_status(api, api->CastTypeInfoToTensorInfo(type.get(), &info), "model signature");
  if (!status.ok()) return status;
  for (const Tensor& tensor : expected) {
    if (name != tensor.name) continue;
    ONNXTensorElementDataType element = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    size_t rank = 0;
    if (info != nullptr) {
      api->ReleaseStatus(api->GetTensorElementType(info, &element));
      api->ReleaseStatus(api->GetDimensionsCount(info, &rank));
    }
    std::vector<int64_t> dims(rank);
    if (rank > 0) api->ReleaseStatus(api->GetDimensions(info, dims.data(), rank));
    const bool is_half_prefix = has_half_prefix && tensor.type == kFloat &&
                                element == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
    if ((element == tensor.type || is_half_prefix) && dims_agree(tensor.dims, dims)) {
      if (is_input && tensor.type == kFloat) prefix_type_ = element;
      return Status::success();
    }
    return {Code::kBadArtifact, std::string("the model's ") + tensor.name +
                                    " has another type or shape than the manifest and csrm's "
                                    "signature; export it again"};
  }
  return {Code::kBadArtifact, std::string("the model has an ") + (is_input ? "input" : "output") +
                                  " that csrm's signature does not know; export it again"};
}

}  // namespace csrm
