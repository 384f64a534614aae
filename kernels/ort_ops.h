// csrm's custom operators for ONNX Runtime: domain "csrm", version 1 of each (ort_operators.h).
// Not: their arithmetic. The C++ runtime calls register_ops with its engine; Python's onnxruntime
// calls RegisterCustomOps through SessionOptions.register_custom_ops_library.
// Two copies of the engine may live in one process: nothing here keeps a global OrtApi.
#ifndef CSRM_KERNELS_ORT_OPS_H_
#define CSRM_KERNELS_ORT_OPS_H_

#include "onnxruntime_c_api.h"

namespace csrm::kernels {

// Adds the operators to `options`; null on success, else an OrtStatus of `api` for the caller to
// release. `api` must outlive the process's use of the engine. Thread-safe; throws nothing.
OrtStatus* register_ops(const OrtApi& api, OrtSessionOptions* options) noexcept;

}  // namespace csrm::kernels

// The entry point ONNX Runtime looks up by name in a custom operator library.
#if defined(_WIN32)
extern "C" __declspec(dllexport) OrtStatus* ORT_API_CALL
#else
extern "C" __attribute__((visibility("default"))) OrtStatus* ORT_API_CALL
#endif
RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* api_base) noexcept;

#endif  // CSRM_KERNELS_ORT_OPS_H_
