// Registration of csrm's operators with ONNX Runtime: one domain per copy of the engine.
// Not: an operator (ort_operators.h lists them).
#include "ort_ops.h"

#include <map>
#include <mutex>

#include "ort_operators.h"

namespace csrm::kernels {
namespace {

using OperatorOf = const OrtCustomOp& (*)();
constexpr OperatorOf kOperators[] = {
    add_norm_operator,    encoder_i8_operator, half_key_value_operator,
    linear_operator,      linear_i8_operator,  prefix_attention_operator,
    reward_head_operator, rope_operator,       swiglu_operator,
};

// The domain of one engine, made on first use. Never destroyed: sessions may outlive any static.
OrtCustomOpDomain* domain_of(const OrtApi& api) {
  static auto* const mutex = new std::mutex;
  static auto* const domains = new std::map<const OrtApi*, OrtCustomOpDomain*>;
  const std::lock_guard<std::mutex> lock(*mutex);
  OrtCustomOpDomain*& domain = (*domains)[&api];
  if (domain == nullptr) {
    OrtCustomOpDomain* made = nullptr;
    check(api.CreateCustomOpDomain("csrm", &made));
    for (OperatorOf operator_of : kOperators) {
      if (OrtStatus* status = api.CustomOpDomain_Add(made, &operator_of())) {
        api.ReleaseCustomOpDomain(made);
        throw EngineError{status};
      }
    }
    domain = made;
  }
  return domain;
}

}  // namespace

OrtStatus* register_ops(const OrtApi& api, OrtSessionOptions* options) noexcept {
  return run(api, [&] { check(api.AddCustomOpDomain(options, domain_of(api))); });
}

}  // namespace csrm::kernels

OrtStatus* ORT_API_CALL RegisterCustomOps(OrtSessionOptions* options,
                                          const OrtApiBase* api_base) noexcept {
  if (const OrtApi* api = api_base->GetApi(ORT_API_VERSION)) {
    return csrm::kernels::register_ops(*api, options);
  }
  // CreateStatus is the first member of every version of the API, so version 1 can report.
  return api_base->GetApi(1)->CreateStatus(
      ORT_NOT_IMPLEMENTED, "csrm: ONNX Runtime is older than 1.17; install a newer one");
}
