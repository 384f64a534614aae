// The provider's options and operators; see ort_cuda_engine.h.
#include "ort_cuda_engine.h"

#include <array>
#include <cstdlib>
#include <mutex>
#include <string_view>
#include <utility>

#include "bound_engine.h"
#include "cuda_memory.h"
#include "cuda_support.h"
#include "model_session.h"

namespace csrm {
namespace {

bool wants_graphs() {
  const char* value = std::getenv("CSRM_CUDA_GRAPHS");
  return value == nullptr || std::string_view(value) != "0";
}

Status add_provider(const OrtApi* api, OrtSessionOptions* options, CudaStream stream,
                    bool has_graphs) {
  Handle<OrtCUDAProviderOptionsV2> provider(api->ReleaseCUDAProviderOptions);
  Status status = take_status(api, api->CreateCUDAProviderOptions(provider.out()), "CUDA options");
  if (!status.ok()) return status;
  const std::array<const char*, 4> keys = {"device_id", "use_tf32", "arena_extend_strategy",
                                           "enable_cuda_graph"};
  // TF32 would round the factors of fp32 products to 10 bits.
  const std::array<const char*, 4> values = {"0", "0", "kSameAsRequested", has_graphs ? "1" : "0"};
  status = take_status(
      api, api->UpdateCUDAProviderOptions(provider.get(), keys.data(), values.data(), keys.size()),
      "CUDA options");
  if (!status.ok()) return status;
  status = take_status(
      api, api->UpdateCUDAProviderOptionsWithValue(provider.get(), "user_compute_stream", stream),
      "CUDA options");
  if (!status.ok()) return status;
  status = take_status(api, api->SetDeterministicCompute(options, true), "CUDA options");
  if (!status.ok()) return status;
  return take_status(api,
                     api->SessionOptionsAppendExecutionProvider_CUDA_V2(options, provider.get()),
                     "ONNX Runtime's CUDA provider");
}

Result<std::unique_ptr<ModelSession>> open_session(const CudaSupport& support,
                                                   const std::string& model_path,
                                                   const ModelShape& shape,
                                                   const CudaOperators* operators,
                                                   const EngineOptions& options, CudaStream stream,
                                                   bool has_graphs) {
  const SessionSetUp set_up = [&](const OrtApi* api, OrtSessionOptions* session_options) {
    Status status = add_provider(api, session_options, stream, has_graphs);
    if (!status.ok() || operators == nullptr) return status;
    return take_status(api, operators->add(api, session_options), "csrm's operators for CUDA");
  };
  return ModelSession::open(support.library, model_path, shape, true, options, set_up);
}

}  // namespace

Result<std::unique_ptr<Engine>> load_ort_cuda_engine(const std::string& model_path,
                                                     const ModelShape& shape, bool has_operators,
                                                     const EngineOptions& options) {
  Result<CudaSupport> support = find_cuda_support(options.library);
  if (!support.ok()) return support.status();
  CudaOperators operators{};
  if (has_operators) {
    Result<CudaOperators> loaded = load_cuda_operators();
    if (!loaded.ok()) return loaded.status();
    operators = std::move(loaded).value();
  }
  Result<std::unique_ptr<ModelSession>> session(Code::kInternal, "");
  Result<std::shared_ptr<CudaMemory>> memory(Code::kInternal, "");
  const bool has_graphs = has_operators && wants_graphs();
  {
    const std::lock_guard<std::mutex> lock(device_mutex());
    memory = CudaMemory::open(*support.value().driver, support.value().gpu.device);
    if (!memory.ok()) return memory.status();
    session = open_session(support.value(), model_path, shape, has_operators ? &operators : nullptr,
                           options, memory.value()->stream(), has_graphs);
  }
  if (!session.ok()) return session.status();
  return make_bound_engine(std::move(session).value(), std::move(memory).value(), has_graphs);
}

}  // namespace csrm
