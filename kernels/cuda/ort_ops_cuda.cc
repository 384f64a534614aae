// libcsrm_cuda.so: registers csrm's operators for CUDA with ONNX Runtime, in a domain of their own
// for each copy of the engine. libcsrm opens the library when a model is loaded onto a GPU, and
// Python's onnxruntime through RegisterCustomOps. Not: an operator (ort_operators_cuda.h lists
// them).
#include <map>
#include <mutex>

#include "csrm/csrm.h"
#include "kernels/cuda/ort_operators_cuda.h"

#define CSRM_EXPORT __attribute__((visibility("default")))

namespace csrm::kernels::cuda {
namespace {

using OperatorFor = const OrtCustomOp& (*)(DType);
constexpr OperatorFor kOperators[] = {
    add_norm_operator,    keys_values_operator, prefix_attention_operator,
    reward_head_operator, rope_operator,        swiglu_operator};

// Adds `op`, or releases `domain` and throws the status.
void add(const OrtApi& api, OrtCustomOpDomain* domain, const OrtCustomOp& op) {
  if (OrtStatus* status = api.CustomOpDomain_Add(domain, &op)) {
    api.ReleaseCustomOpDomain(domain);
    throw EngineError{status};
  }
}

// Made on first use; never destroyed: sessions may outlive any static.
OrtCustomOpDomain* domain_of(const OrtApi& api) {
  static auto* const mutex = new std::mutex;
  static auto* const domains = new std::map<const OrtApi*, OrtCustomOpDomain*>;
  const std::lock_guard<std::mutex> lock(*mutex);
  OrtCustomOpDomain*& domain = (*domains)[&api];
  if (domain != nullptr) return domain;
  OrtCustomOpDomain* made = nullptr;
  check(api.CreateCustomOpDomain("csrm", &made));
  for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    for (const OperatorFor operator_for : kOperators) add(api, made, operator_for(dtype));
  }
  for (const DType dtype : {DType::kFloat16, DType::kBFloat16}) {
    add(api, made, wide_add_norm_operator(dtype));
  }
  domain = made;
  return domain;
}

}  // namespace
}  // namespace csrm::kernels::cuda

extern "C" {

// The release it belongs to, and the GPUs it was compiled for ("80,89,90"). Static storage.
CSRM_EXPORT const char* csrm_cuda_version() { return CSRM_VERSION; }
CSRM_EXPORT const char* csrm_cuda_architectures() { return CSRM_CUDA_ARCHITECTURE_LIST; }

// Adds the operators to `options`; null on success, else a status of `api` for the caller to
// release. Thread-safe; throws nothing.
CSRM_EXPORT OrtStatus* csrm_cuda_register(const OrtApi* api, OrtSessionOptions* options) {
  using csrm::kernels::check;
  return csrm::kernels::run(
      *api, [&] { check(api->AddCustomOpDomain(options, csrm::kernels::cuda::domain_of(*api))); });
}

CSRM_EXPORT OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  if (const OrtApi* api = base->GetApi(ORT_API_VERSION)) return csrm_cuda_register(api, options);
  return base->GetApi(1)->CreateStatus(
      ORT_NOT_IMPLEMENTED, "csrm: ONNX Runtime is older than 1.17; install a newer one");
}

}  // extern "C"
