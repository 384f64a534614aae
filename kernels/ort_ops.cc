// The ONNX Runtime side of csrm's operators: attributes and tensors in, kernel call, OrtStatus out.
// Written against the plain C structs: the C++ wrapper keeps one global OrtApi, which is wrong as
// soon as two copies of the engine are in one process (Python's module and the runtime's library).
#include "ort_ops.h"

#include <exception>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "reward_head.h"

namespace csrm::kernels {
namespace {

// An OrtStatus on its way out of nested calls; `run` hands it to the engine.
struct EngineError {
  OrtStatus* status;
};

void check(OrtStatus* status) {
  if (status != nullptr) throw EngineError{status};
}

// Calls `body`; nothing it throws leaves this function.
template <typename Body>
OrtStatus* run(const OrtApi& api, Body body) noexcept {
  try {
    return body();
  } catch (const EngineError& error) {
    return error.status;
  } catch (const std::invalid_argument& error) {
    return api.CreateStatus(ORT_INVALID_ARGUMENT, error.what());
  } catch (const std::exception& error) {
    return api.CreateStatus(ORT_FAIL, error.what());
  } catch (...) {
    return api.CreateStatus(ORT_FAIL, "csrm: unknown exception in an operator");
  }
}

constexpr const char* kInputNames[] = {"hidden", "pooled_at", "norm_weight", "norm_bias",
                                       "rows",   "row_bias",  "calibration"};
constexpr size_t kInputRanks[] = {3, 2, 1, 1, 2, 1, 1};
constexpr size_t kPooledAt = 1;
constexpr size_t kInputs = 7;
constexpr size_t kOutputs = 2;

struct Kernel {
  const OrtApi* api;
  int64_t n_safe;
  float epsilon;
  Isa isa;
};

// The optional attribute "isa", which tests and benches use to pick a version.
Isa read_isa(const OrtApi& api, const OrtKernelInfo* info) {
  char name[16] = {};
  size_t size = sizeof(name);
  if (OrtStatus* absent = api.KernelInfoGetAttribute_string(info, "isa", name, &size)) {
    api.ReleaseStatus(absent);
    return Isa::kBest;
  }
  const std::string isa(name);
  if (isa == "portable") return Isa::kPortable;
  if (isa == "avx2") return Isa::kAvx2;
  if (isa == "avx512") return Isa::kAvx512;
  throw std::invalid_argument("RewardHead: attribute isa is none of portable, avx2, avx512");
}

struct Input {
  const void* data;
  std::vector<int64_t> dims;
};

Input read_input(const OrtApi& api, const OrtKernelContext* context, size_t index) {
  const OrtValue* value = nullptr;
  check(api.KernelContext_GetInput(context, index, &value));
  OrtTensorTypeAndShapeInfo* shape = nullptr;
  check(api.GetTensorTypeAndShape(value, &shape));
  size_t rank = 0;
  OrtStatus* status = api.GetDimensionsCount(shape, &rank);
  Input input{nullptr, std::vector<int64_t>(kInputRanks[index])};
  const bool has_rank = status == nullptr && rank == input.dims.size();
  if (has_rank) status = api.GetDimensions(shape, input.dims.data(), rank);
  api.ReleaseTensorTypeAndShapeInfo(shape);
  check(status);
  if (!has_rank) {
    throw std::invalid_argument(std::string("RewardHead: input ") + kInputNames[index] +
                                " has rank " + std::to_string(rank) + "; it must have " +
                                std::to_string(kInputRanks[index]));
  }
  // The engine's API is not const-correct here; the data is only read.
  void* data = nullptr;
  check(api.GetTensorMutableData(const_cast<OrtValue*>(value), &data));
  input.data = data;
  return input;
}

// Every dimension is named once, where it is first seen; others must match it.
void match(size_t index, const Input& input, size_t axis, int64_t size, const char* dimension) {
  if (input.dims[axis] == size) return;
  throw std::invalid_argument(std::string("RewardHead: input ") + kInputNames[index] + " has " +
                              std::to_string(input.dims[axis]) + " along axis " +
                              std::to_string(axis) + "; " + dimension + " is " +
                              std::to_string(size));
}

float* make_output(const OrtApi& api, OrtKernelContext* context, size_t index, const Input& like) {
  OrtValue* value = nullptr;
  check(api.KernelContext_GetOutput(context, index, like.dims.data(), like.dims.size(), &value));
  void* data = nullptr;
  check(api.GetTensorMutableData(value, &data));
  return static_cast<float*>(data);
}

OrtStatus* compute(const Kernel& kernel, OrtKernelContext* context) {
  const OrtApi& api = *kernel.api;
  std::vector<Input> in;
  for (size_t i = 0; i < kInputs; ++i) in.push_back(read_input(api, context, i));
  RewardHeadParams p{};
  p.n_batch = in[0].dims[0];
  p.n_tokens = in[0].dims[1];
  p.n_hidden = in[0].dims[2];
  p.n_pooled = in[1].dims[1];
  p.n_verbalizers = in[4].dims[0];
  match(1, in[1], 0, p.n_batch, "B");
  match(2, in[2], 0, p.n_hidden, "H");
  match(3, in[3], 0, p.n_hidden, "H");
  match(4, in[4], 1, p.n_hidden, "H");
  match(5, in[5], 0, p.n_verbalizers, "V");
  match(6, in[6], 0, 2, "the number of calibration values");
  p.hidden = static_cast<const float*>(in[0].data);
  p.pooled_at = static_cast<const int64_t*>(in[1].data);
  p.norm_weight = static_cast<const float*>(in[2].data);
  p.norm_bias = static_cast<const float*>(in[3].data);
  p.rows = static_cast<const float*>(in[4].data);
  p.row_bias = static_cast<const float*>(in[5].data);
  p.calibration = static_cast<const float*>(in[6].data);
  p.reward = make_output(api, context, 0, in[kPooledAt]);
  p.compliance = make_output(api, context, 1, in[kPooledAt]);
  p.n_safe = kernel.n_safe;
  p.epsilon = kernel.epsilon;
  const Status status = reward_head(p, kernel.isa);
  if (!status.ok()) throw std::invalid_argument(status.message);
  return nullptr;
}

OrtStatus* ORT_API_CALL create_kernel(const OrtCustomOp*, const OrtApi* api,
                                      const OrtKernelInfo* info, void** kernel) {
  return run(*api, [&]() -> OrtStatus* {
    Kernel made{api, 0, 0, read_isa(*api, info)};
    check(api->KernelInfoGetAttribute_int64(info, "n_safe", &made.n_safe));
    check(api->KernelInfoGetAttribute_float(info, "epsilon", &made.epsilon));
    *kernel = new Kernel(made);
    return nullptr;
  });
}

OrtStatus* ORT_API_CALL compute_kernel(void* kernel, OrtKernelContext* context) {
  const Kernel& made = *static_cast<const Kernel*>(kernel);
  return run(*made.api, [&] { return compute(made, context); });
}

OrtCustomOp make_reward_head_op() {
  OrtCustomOp op{};
  op.version = ORT_API_VERSION;
  op.GetName = [](const OrtCustomOp*) { return "RewardHead"; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) { return "CPUExecutionProvider"; };
  op.GetInputTypeCount = [](const OrtCustomOp*) { return kInputs; };
  op.GetOutputTypeCount = [](const OrtCustomOp*) { return kOutputs; };
  op.GetInputType = [](const OrtCustomOp*, size_t index) {
    return index == kPooledAt ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64
                              : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  };
  op.GetOutputType = [](const OrtCustomOp*, size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; };
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  op.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
  op.GetVariadicInputMinArity = [](const OrtCustomOp*) { return 1; };
  op.GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 1; };
  op.GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 1; };
  op.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
  op.GetStartVersion = [](const OrtCustomOp*) { return 1; };
  op.GetEndVersion = [](const OrtCustomOp*) { return 1; };
  op.CreateKernelV2 = create_kernel;
  op.KernelComputeV2 = compute_kernel;
  op.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  return op;
}

// The domain of one engine, made on first use. Never destroyed: sessions may outlive any static.
OrtCustomOpDomain* domain_of(const OrtApi& api) {
  static const OrtCustomOp* const op = new OrtCustomOp(make_reward_head_op());
  static auto* const mutex = new std::mutex;
  static auto* const domains = new std::map<const OrtApi*, OrtCustomOpDomain*>;
  const std::lock_guard<std::mutex> lock(*mutex);
  OrtCustomOpDomain*& domain = (*domains)[&api];
  if (domain == nullptr) {
    OrtCustomOpDomain* made = nullptr;
    check(api.CreateCustomOpDomain("csrm", &made));
    if (OrtStatus* status = api.CustomOpDomain_Add(made, op)) {
      api.ReleaseCustomOpDomain(made);
      throw EngineError{status};
    }
    domain = made;
  }
  return domain;
}

}  // namespace

OrtStatus* register_ops(const OrtApi& api, OrtSessionOptions* options) noexcept {
  return run(api, [&] { return api.AddCustomOpDomain(options, domain_of(api)); });
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
