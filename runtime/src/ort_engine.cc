// The session: options, the signature check, and one Run per encode(). Uses the engine's C API,
// which throws nothing; every handle of it is owned by an object here.
#include "ort_engine.h"

#include <array>
#include <cstring>
#include <utility>

#include "engine_library.h"
#include "kernels/ort_ops.h"

namespace csrm {
namespace {

constexpr size_t kInputs = 7;
constexpr size_t kOutputs = 4;
constexpr int64_t kAny = -1;
using Names = const char*;

constexpr Names kInputNames[kInputs] = {"input_ids", "position_ids", "segment_ids", "visible",
                                        "pooled_at", "prefix_key",   "prefix_value"};
constexpr Names kOutputNames[kOutputs] = {"key", "value", "reward", "compliance"};

struct Tensor {
  const char* name;
  ONNXTensorElementDataType type;
  std::vector<int64_t> dims;  // kAny where the call decides
};

template <typename T>
class Handle {
 public:
  using Release = void(ORT_API_CALL*)(T*);
  explicit Handle(Release release) : release_(release) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() {
    if (handle_ != nullptr) release_(handle_);
  }
  T* get() const { return handle_; }
  T** out() { return &handle_; }

 private:
  T* handle_ = nullptr;
  Release release_;
};

std::vector<Tensor> signature_inputs(const ModelShape& shape) {
  constexpr auto kInt = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
  constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  const std::vector<int64_t> prefix = {shape.layers, shape.kv_heads, kAny, shape.head_dim};
  std::vector<Tensor> inputs;
  for (size_t i = 0; i < 5; ++i) inputs.push_back({kInputNames[i], kInt, {kAny, kAny}});
  inputs.push_back({kInputNames[5], kFloat, prefix});
  inputs.push_back({kInputNames[6], kFloat, prefix});
  return inputs;
}

std::vector<Tensor> signature_outputs(const ModelShape& shape) {
  constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  const std::vector<int64_t> kv = {kAny, shape.layers, shape.kv_heads, kAny, shape.head_dim};
  return {{kOutputNames[0], kFloat, kv},
          {kOutputNames[1], kFloat, kv},
          {kOutputNames[2], kFloat, {kAny, kAny}},
          {kOutputNames[3], kFloat, {kAny, kAny}}};
}

// True where the model's dimension is free or what the signature says.
bool dims_agree(const std::vector<int64_t>& expected, const std::vector<int64_t>& actual) {
  if (expected.size() != actual.size()) return false;
  for (size_t i = 0; i < expected.size(); ++i) {
    if (actual[i] > 0 && actual[i] != expected[i]) return false;
  }
  return true;
}

struct FreeValue {
  const OrtApi* api;
  void operator()(OrtValue* value) const { api->ReleaseValue(value); }
};
using OwnedValue = std::unique_ptr<OrtValue, FreeValue>;

struct OrtEngine final : Engine {
  OrtEngine(EngineLibrary loaded, const ModelShape& model_shape)
      : library(std::move(loaded)),
        api(library.api),
        shape(model_shape),
        env(api->ReleaseEnv),
        session(api->ReleaseSession),
        cpu(api->ReleaseMemoryInfo) {}

  Status open(const std::string& model_path, bool custom_operators, const EngineOptions& options);
  Status encode(const EncodeInput& in, EncodeOutput* output) const override;
  const std::string& version() const override { return library.version; }
  Device device() const override { return Device::kCpu; }

  Status set_options(OrtSessionOptions* options, bool custom_operators,
                     const EngineOptions& wanted) const;
  Status check_signature() const;
  Status check_tensor(bool is_input, size_t index, const std::vector<Tensor>& expected) const;
  Status make_tensor(const void* data, size_t n_bytes, const std::vector<int64_t>& dims,
                     ONNXTensorElementDataType type, OrtValue** value) const;
  Status make_inputs(const EncodeInput& in, std::array<OrtValue*, kInputs>* values) const;
  Status output_data(const OrtValue* value, const std::vector<int64_t>& dims,
                     const float** data) const;

  EngineLibrary library;
  const OrtApi* api;
  ModelShape shape;
  Handle<OrtEnv> env;  // declared before the session, so released after it
  Handle<OrtSession> session;
  Handle<OrtMemoryInfo> cpu;
};

Status OrtEngine::set_options(OrtSessionOptions* options, bool custom_operators,
                              const EngineOptions& wanted) const {
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
  if (!custom_operators) return Status::success();
  return take_status(api, kernels::register_ops(*api, options), "custom operators");
}

Status OrtEngine::open(const std::string& model_path, bool custom_operators,
                       const EngineOptions& wanted) {
  // Errors come back as statuses; anything less than fatal on stderr would only repeat them.
  Status status =
      take_status(api, api->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "csrm", env.out()), "engine");
  if (!status.ok()) return status;
  Handle<OrtSessionOptions> options(api->ReleaseSessionOptions);
  status = take_status(api, api->CreateSessionOptions(options.out()), "options");
  if (!status.ok()) return status;
  status = set_options(options.get(), custom_operators, wanted);
  if (!status.ok()) return status;
  status = take_status(
      api, api->CreateSession(env.get(), model_path.c_str(), options.get(), session.out()),
      "the model cannot be loaded");
  if (!status.ok()) return status;
  status = take_status(
      api, api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, cpu.out()), "engine");
  if (!status.ok()) return status;
  return check_signature();
}

Status OrtEngine::check_signature() const {
  size_t n_inputs = 0, n_outputs = 0;
  Status status =
      take_status(api, api->SessionGetInputCount(session.get(), &n_inputs), "model inputs");
  if (!status.ok()) return status;
  status = take_status(api, api->SessionGetOutputCount(session.get(), &n_outputs), "model outputs");
  if (!status.ok()) return status;
  if (n_inputs != kInputs || n_outputs != kOutputs) {
    return {Code::kBadArtifact, "the model has " + std::to_string(n_inputs) + " inputs and " +
                                    std::to_string(n_outputs) +
                                    " outputs; csrm's signature has 7 and 4; export it again"};
  }
  const std::vector<Tensor> inputs = signature_inputs(shape), outputs = signature_outputs(shape);
  for (size_t i = 0; i < n_inputs; ++i) {
    if (Status bad = check_tensor(true, i, inputs); !bad.ok()) return bad;
  }
  for (size_t i = 0; i < n_outputs; ++i) {
    if (Status bad = check_tensor(false, i, outputs); !bad.ok()) return bad;
  }
  return Status::success();
}

Status OrtEngine::check_tensor(bool is_input, size_t index,
                               const std::vector<Tensor>& expected) const {
  OrtAllocator* allocator = nullptr;
  Status status = take_status(api, api->GetAllocatorWithDefaultOptions(&allocator), "allocator");
  if (!status.ok()) return status;
  char* raw_name = nullptr;
  status =
      take_status(api,
                  is_input ? api->SessionGetInputName(session.get(), index, allocator, &raw_name)
                           : api->SessionGetOutputName(session.get(), index, allocator, &raw_name),
                  "model signature");
  if (!status.ok()) return status;
  const std::string name = raw_name;
  allocator->Free(allocator, raw_name);
  Handle<OrtTypeInfo> type(api->ReleaseTypeInfo);
  status = take_status(api,
                       is_input ? api->SessionGetInputTypeInfo(session.get(), index, type.out())
                                : api->SessionGetOutputTypeInfo(session.get(), index, type.out()),
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
    if (element == tensor.type && dims_agree(tensor.dims, dims)) return Status::success();
    return {Code::kBadArtifact, std::string("the model's ") + tensor.name +
                                    " has another type or shape than the manifest and csrm's "
                                    "signature; export it again"};
  }
  return {Code::kBadArtifact, std::string("the model has an ") + (is_input ? "input" : "output") +
                                  " that csrm's signature does not know; export it again"};
}

Status OrtEngine::make_tensor(const void* data, size_t n_bytes, const std::vector<int64_t>& dims,
                              ONNXTensorElementDataType type, OrtValue** value) const {
  // The C API takes a mutable pointer but the engine never writes to an input.
  return take_status(
      api,
      api->CreateTensorWithDataAsOrtValue(cpu.get(), const_cast<void*>(data), n_bytes, dims.data(),
                                          dims.size(), type, value),
      "engine input");
}

Status OrtEngine::output_data(const OrtValue* value, const std::vector<int64_t>& dims,
                              const float** data) const {
  Handle<OrtTensorTypeAndShapeInfo> info(api->ReleaseTensorTypeAndShapeInfo);
  Status status = take_status(api, api->GetTensorTypeAndShape(value, info.out()), "engine output");
  if (!status.ok()) return status;
  size_t rank = 0;
  status = take_status(api, api->GetDimensionsCount(info.get(), &rank), "engine output");
  if (!status.ok()) return status;
  std::vector<int64_t> actual(rank);
  status = take_status(api, api->GetDimensions(info.get(), actual.data(), rank), "engine output");
  if (!status.ok()) return status;
  if (actual != dims) {
    return {Code::kEngineFailed,
            "the model returned a tensor of an unexpected shape; export the artifact again"};
  }
  void* memory = nullptr;
  status = take_status(api, api->GetTensorMutableData(const_cast<OrtValue*>(value), &memory),
                       "engine output");
  *data = static_cast<const float*>(memory);
  return status;
}

Status OrtEngine::make_inputs(const EncodeInput& in, std::array<OrtValue*, kInputs>* values) const {
  // P = 0 has no floats, but the engine refuses a null pointer.
  static const float kNoPrefix = 0.0f;
  const bool has_prefix = in.n_prefix_tokens > 0;
  const size_t prefix_bytes =
      static_cast<size_t>(in.n_prefix_tokens) * shape.floats_per_token() * sizeof(float);
  const std::vector<int64_t> row_dims = {in.n_rows, in.row_tokens};
  const std::vector<int64_t> pooled_dims = {in.n_rows, in.n_pooled};
  const std::vector<int64_t> prefix_dims = {shape.layers, shape.kv_heads, in.n_prefix_tokens,
                                            shape.head_dim};
  const std::vector<int64_t>* integers[5] = {&in.input_ids, &in.position_ids, &in.segment_ids,
                                             &in.visible, &in.pooled_at};
  for (size_t i = 0; i < 5; ++i) {
    Status status = make_tensor(integers[i]->data(), integers[i]->size() * sizeof(int64_t),
                                i < 4 ? row_dims : pooled_dims, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
                                &(*values)[i]);
    if (!status.ok()) return status;
  }
  const float* floats[2] = {has_prefix ? in.prefix_key : &kNoPrefix,
                            has_prefix ? in.prefix_value : &kNoPrefix};
  for (size_t i = 0; i < 2; ++i) {
    Status status = make_tensor(floats[i], prefix_bytes, prefix_dims,
                                ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &(*values)[5 + i]);
    if (!status.ok()) return status;
  }
  return Status::success();
}

Status OrtEngine::encode(const EncodeInput& in, EncodeOutput* output) const {
  const auto own = [this](OrtValue* value) { return OwnedValue(value, FreeValue{api}); };
  std::array<OrtValue*, kInputs> values{};
  Status status = make_inputs(in, &values);
  std::array<OwnedValue, kInputs> inputs = {own(values[0]), own(values[1]), own(values[2]),
                                            own(values[3]), own(values[4]), own(values[5]),
                                            own(values[6])};
  if (!status.ok()) return status;

  std::vector<size_t> wanted;
  if (in.want_key_value) wanted.insert(wanted.end(), {0, 1});
  if (in.want_reward) wanted.insert(wanted.end(), {2, 3});
  std::array<Names, kOutputs> names{};
  for (size_t i = 0; i < wanted.size(); ++i) names[i] = kOutputNames[wanted[i]];
  std::array<OrtValue*, kOutputs> results{};
  output->owned.clear();
  output->owned.reserve(kOutputs);
  status = take_status(api,
                       api->Run(session.get(), nullptr, kInputNames, values.data(), kInputs,
                                names.data(), wanted.size(), results.data()),
                       "the model cannot be run");
  for (OrtValue* result : results) {
    if (result != nullptr) output->owned.push_back(std::shared_ptr<const OrtValue>(own(result)));
  }
  const std::vector<int64_t> kv_dims = {in.n_rows, shape.layers, shape.kv_heads, in.row_tokens,
                                        shape.head_dim};
  const std::vector<int64_t> pooled_dims = {in.n_rows, in.n_pooled};
  const float** slots[kOutputs] = {&output->key, &output->value, &output->reward,
                                   &output->compliance};
  for (size_t i = 0; i < wanted.size() && status.ok(); ++i) {
    status = output_data(results[i], wanted[i] < 2 ? kv_dims : pooled_dims, slots[wanted[i]]);
  }
  return status;
}

}  // namespace

Result<std::unique_ptr<Engine>> load_ort_engine(const std::string& model_path,
                                                const ModelShape& shape, bool custom_operators,
                                                const EngineOptions& options) {
  Result<EngineLibrary> library = load_engine_library(options.library);
  if (!library.ok()) return library.status();
  auto engine = std::make_unique<OrtEngine>(std::move(library).value(), shape);
  if (Status bad = engine->open(model_path, custom_operators, options); !bad.ok()) return bad;
  return std::unique_ptr<Engine>(std::move(engine));
}

}  // namespace csrm
