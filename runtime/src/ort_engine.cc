// One Run per encode(), on tensors in host memory; see ort_engine.h.
#include "ort_engine.h"

#include <array>
#include <utility>

#include "engine_threads.h"
#include "kernels/call_hints.h"
#include "kernels/ort_ops.h"
#include "model_session.h"

namespace csrm {
namespace {

constexpr auto kInt64 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;

// What operators keep of a prefix (kernels/packed_prefix.h).
class PackedCopy final : public DevicePrefix {
 public:
  // The copy is const to those who share it; what is in it is safe for any number of threads.
  kernels::PackedPrefix* get() const { return &packed_; }

 private:
  mutable kernels::PackedPrefix packed_;
};

class OrtEngine final : public Engine {
 public:
  OrtEngine(std::unique_ptr<EngineThreads> threads, std::unique_ptr<ModelSession> session)
      : threads_(std::move(threads)),
        session_(std::move(session)),
        cpu_(session_->api()->ReleaseMemoryInfo) {}

  Status open() {
    const OrtApi* api = session_->api();
    return take_status(
        api, api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, cpu_.out()), "engine");
  }

  Status encode(const EncodeInput& in, EncodeOutput* output) const override;
  KvType kv_type() const override { return session_->shape().kv_type; }
  const std::string& version() const override { return session_->version(); }
  Device device() const override { return Device::kCpu; }

 private:
  Status make_inputs(const EncodeInput& in, std::vector<OwnedValue>* values) const;
  Status output_data(const OrtValue* value, const std::vector<int64_t>& dims,
                     const void** data) const;

  std::unique_ptr<EngineThreads> threads_;  // declared before the session, so ended after it
  std::unique_ptr<ModelSession> session_;
  Handle<OrtMemoryInfo> cpu_;
};

Status OrtEngine::make_inputs(const EncodeInput& in, std::vector<OwnedValue>* values) const {
  // P = 0 has no numbers, but the engine refuses a null pointer.
  static const float kNoPrefix = 0.0f;
  const ModelShape& shape = session_->shape();
  const bool has_prefix = in.n_prefix_tokens > 0;
  const size_t prefix_bytes = static_cast<size_t>(in.n_prefix_tokens) * shape.bytes_per_token();
  const std::vector<int64_t> row_dims = {in.n_rows, in.row_tokens};
  const std::vector<int64_t> pooled_dims = {in.n_rows, in.n_pooled};
  const std::vector<int64_t> prefix_dims = {shape.layers, shape.kv_heads, in.n_prefix_tokens,
                                            shape.head_dim};
  const std::vector<int64_t>* integers[5] = {&in.input_ids, &in.position_ids, &in.segment_ids,
                                             &in.visible, &in.pooled_at};
  values->reserve(kModelInputs);
  for (size_t i = 0; i < 5; ++i) {
    Result<OwnedValue> value =
        session_->tensor(cpu_.get(), integers[i]->data(), integers[i]->size() * sizeof(int64_t),
                         i < 4 ? row_dims : pooled_dims, kInt64);
    if (!value.ok()) return value.status();
    values->push_back(std::move(value).value());
  }
  for (const void* numbers : {in.prefix_key, in.prefix_value}) {
    Result<OwnedValue> value = session_->tensor(cpu_.get(), has_prefix ? numbers : &kNoPrefix,
                                                prefix_bytes, prefix_dims, session_->prefix_type());
    if (!value.ok()) return value.status();
    values->push_back(std::move(value).value());
  }
  return Status::success();
}

Status OrtEngine::output_data(const OrtValue* value, const std::vector<int64_t>& dims,
                              const void** data) const {
  const OrtApi* api = session_->api();
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
  *data = memory;
  return status;
}

Status OrtEngine::encode(const EncodeInput& in, EncodeOutput* output) const {
  const OrtApi* api = session_->api();
  const ModelShape& shape = session_->shape();
  std::vector<OwnedValue> inputs;
  if (Status bad = make_inputs(in, &inputs); !bad.ok()) return bad;
  std::array<const OrtValue*, kModelInputs> values{};
  for (size_t i = 0; i < kModelInputs; ++i) values[i] = inputs[i].get();

  kernels::CallHints hints;
  hints.wants_key_value = in.want_key_value;
  std::shared_ptr<const DevicePrefix> kept;  // as long as the call
  if (in.prefix_slot != nullptr) {
    Result<std::shared_ptr<const DevicePrefix>> copy = in.prefix_slot->get_or_make(
        [] { return std::shared_ptr<const DevicePrefix>(std::make_shared<PackedCopy>()); });
    if (!copy.ok()) return copy.status();
    kept = std::move(copy).value();
    hints.packed_prefix = static_cast<const PackedCopy&>(*kept).get();
  }

  std::vector<size_t> wanted;
  if (in.want_key_value) wanted.insert(wanted.end(), {0, 1});
  if (in.want_reward) wanted.insert(wanted.end(), {2, 3});
  std::array<const char*, kModelOutputs> names{};
  for (size_t i = 0; i < wanted.size(); ++i) names[i] = kModelOutputNames[wanted[i]];
  std::array<OrtValue*, kModelOutputs> results{};
  output->owned.clear();
  output->owned.reserve(kModelOutputs);
  OrtStatus* error = nullptr;
  {
    const EngineThreads::Call call(threads_.get());
    const kernels::CallHintScope scope(hints);
    error = api->Run(session_->raw(), nullptr, kModelInputNames.data(), values.data(), kModelInputs,
                     names.data(), wanted.size(), results.data());
  }
  Status status = take_status(api, error, "the model cannot be run");
  for (OrtValue* result : results) {
    if (result == nullptr) continue;
    output->owned.push_back(std::shared_ptr<const OrtValue>(OwnedValue(result, FreeValue{api})));
  }
  const std::vector<int64_t> kv_dims = {in.n_rows, shape.layers, shape.kv_heads, in.row_tokens,
                                        shape.head_dim};
  const std::vector<int64_t> pooled_dims = {in.n_rows, in.n_pooled};
  std::array<const void*, kModelOutputs> data{};
  for (size_t i = 0; i < wanted.size() && status.ok(); ++i) {
    status = output_data(results[i], wanted[i] < 2 ? kv_dims : pooled_dims, &data[wanted[i]]);
  }
  output->key = data[0];
  output->value = data[1];
  output->reward = static_cast<const float*>(data[2]);
  output->compliance = static_cast<const float*>(data[3]);
  return status;
}

}  // namespace

Result<std::unique_ptr<Engine>> load_ort_engine(const std::string& model_path,
                                                const ModelShape& shape, bool custom_operators,
                                                const EngineOptions& options) {
  Result<EngineLibrary> library = load_engine_library(options.library);
  if (!library.ok()) return library.status();
  auto threads = std::make_unique<EngineThreads>();
  const SessionSetUp set_up = [&](const OrtApi* api, OrtSessionOptions* session_options) {
    if (Status bad = threads->set_in(api, session_options); !bad.ok()) return bad;
    if (!custom_operators) return Status::success();
    return take_status(api, kernels::register_ops(*api, session_options), "custom operators");
  };
  Result<std::unique_ptr<ModelSession>> session =
      ModelSession::open(std::move(library).value(), model_path, shape, false, options, set_up);
  if (!session.ok()) return session.status();
  auto engine = std::make_unique<OrtEngine>(std::move(threads), std::move(session).value());
  if (Status bad = engine->open(); !bad.ok()) return bad;
  return std::unique_ptr<Engine>(std::move(engine));
}

}  // namespace csrm
