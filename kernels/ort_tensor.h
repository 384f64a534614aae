// What csrm's operators share on the ONNX Runtime side: attributes and tensors of a node read and
// checked, outputs made, the engine's threads. Not: any operator (one ort_*.cc file each) and not
// their registration (ort_ops.cc). Every problem is thrown; `run` turns it into an OrtStatus.
// Written against the plain C structs: the C++ wrapper keeps one global OrtApi, which is wrong as
// soon as two copies of the engine are in one process (Python's module and the runtime's library).
#ifndef CSRM_KERNELS_ORT_TENSOR_H_
#define CSRM_KERNELS_ORT_TENSOR_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include "csrm/status.h"
#include "isa.h"
#include "onnxruntime_c_api.h"

namespace csrm::kernels {

constexpr size_t kMaxRank = 8;
constexpr size_t kAnyRank = 0;

// One input as the engine is told about it and as messages name it.
struct InputSpec {
  const char* name;
  size_t rank;  // kAnyRank: 1 to kMaxRank
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  OrtCustomOpInputOutputCharacteristic kind = INPUT_OUTPUT_REQUIRED;
};

constexpr const char* kOnCpu = "CPUExecutionProvider";

// An operator's name and inputs, and the types of its outputs. Lives as long as the process.
struct OperatorSpec {
  const char* name;
  const InputSpec* inputs;
  size_t n_inputs;
  size_t n_outputs;
  ONNXTensorElementDataType output_type = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;  // of its outputs
  const char* provider = kOnCpu;
  size_t n_optional_outputs = 0;  // the last ones
  // Of the optional outputs; undefined: as of all others.
  ONNXTensorElementDataType optional_output_type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;

  bool is_optional_output(size_t index) const { return index + n_optional_outputs >= n_outputs; }
};

// A view of a dense row-major tensor; the engine owns the data.
struct Tensor {
  const void* data = nullptr;
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  size_t rank = 0;
  std::array<int64_t, kMaxRank> dims{};

  const float* floats() const { return static_cast<const float*>(data); }
  const int64_t* ints() const { return static_cast<const int64_t*>(data); }
};

// An OrtStatus on its way out of nested calls; `run` hands it to the engine.
struct EngineError {
  OrtStatus* status;
};

inline void check(OrtStatus* status) {
  if (status != nullptr) throw EngineError{status};
}

// Calls `body`; nothing it throws leaves this function. Null on success.
template <typename Body>
OrtStatus* run(const OrtApi& api, Body body) noexcept {
  try {
    body();
    return nullptr;
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

// Throws std::invalid_argument with the message of `status` unless it is ok.
void require(const Status& status);

// Every dimension is named once, where it is first seen; others must match it.
// Throws std::invalid_argument: "Op: input x has 3 along axis 0; H is 384".
void match(const OperatorSpec& spec, size_t index, const Tensor& input, size_t axis, int64_t size,
           const char* dimension);

// One node of a graph while its kernel is made.
class Node {
 public:
  Node(const OrtApi& api, const OrtKernelInfo* info, const OperatorSpec& spec)
      : api_(api), info_(info), spec_(spec) {}

  const OperatorSpec& spec() const { return spec_; }
  int64_t int_attribute(const char* name) const;
  float float_attribute(const char* name) const;
  // The text of an attribute, or `absent` if the node has none of that name.
  std::string text_attribute(const char* name, const char* absent) const;
  // The optional attribute "isa", which tests and benches use to pick a version.
  Isa isa() const;
  // Input `index` if it is an initialiser; valid as long as the session.
  std::optional<Tensor> constant(size_t index) const;
  // The same; throws std::invalid_argument if it is none, for operators that pack it once.
  Tensor initialiser(size_t index) const;
  // Whether the node names input `index`, initialiser or not.
  bool has_input(size_t index) const;

 private:
  const OrtApi& api_;
  const OrtKernelInfo* info_;
  const OperatorSpec& spec_;
};

// The tensors and threads of one call of a kernel.
class Call {
 public:
  Call(const OrtApi& api, OrtKernelContext* context, const OperatorSpec& spec)
      : api_(api), context_(context), spec_(spec) {}

  const OperatorSpec& spec() const { return spec_; }
  // How many inputs the node has; more than its spec if the last one is variadic.
  size_t n_inputs() const;
  // Input `index`, its rank checked; data is null if it is optional and absent.
  Tensor input(size_t index) const;
  // Makes output `index` with the dimensions of `like`: its bytes, its floats, or the bits of its
  // float16. Null if it is optional and absent.
  void* output_data(size_t index, const Tensor& like) const;
  float* output(size_t index, const Tensor& like) const {
    return static_cast<float*>(output_data(index, like));
  }
  uint16_t* half_output(size_t index, const Tensor& like) const {
    return static_cast<uint16_t*>(output_data(index, like));
  }
  // Host memory of the engine's for the length of a call; n_bytes >= 1.
  struct Free {
    const OrtApi* api;
    OrtAllocator* allocator;
    void operator()(void* memory) const noexcept;
  };
  using Memory = std::unique_ptr<void, Free>;
  Memory memory(size_t n_bytes) const;
  // The stream to enqueue on, for operators on a GPU.
  void* gpu_stream() const;
  const OrtApi& api() const { return api_; }
  OrtKernelContext* context() const { return context_; }
  // task(arguments, i) for every i < n_tasks on the engine's threads; returns when all are done.
  void parallel_for(size_t n_tasks, void (*task)(void* arguments, size_t i), void* arguments) const;

 private:
  const OrtApi& api_;
  OrtKernelContext* context_;
  const OperatorSpec& spec_;
};

// What the engine holds of an operator: its callbacks find the spec behind their first argument.
struct Operator : OrtCustomOp {
  const OperatorSpec* spec;
};

// Everything of an operator but CreateKernelV2, KernelComputeV2 and KernelDestroy.
Operator described_operator(const OperatorSpec& spec);

// The operator whose kernels are `Kernel`: made by Kernel(const Node&), run by
// compute(const Call&) const, which the engine calls from several threads at once. `spec` is the
// object with static storage that the kernel was written for.
template <typename Kernel>
Operator make_operator(const OperatorSpec& spec) {
  struct Held {
    const OrtApi* api;
    const OperatorSpec* spec;
    Kernel kernel;
  };
  Operator op = described_operator(spec);
  op.CreateKernelV2 = [](const OrtCustomOp* self, const OrtApi* api, const OrtKernelInfo* info,
                         void** made) {
    return run(*api, [&] {
      const OperatorSpec& described = *static_cast<const Operator*>(self)->spec;
      *made = new Held{api, &described, Kernel(Node(*api, info, described))};
    });
  };
  op.KernelComputeV2 = [](void* held, OrtKernelContext* context) {
    const Held& h = *static_cast<const Held*>(held);
    return run(*h.api, [&] { h.kernel.compute(Call(*h.api, context, *h.spec)); });
  };
  op.KernelDestroy = [](void* held) { delete static_cast<Held*>(held); };
  return op;
}

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_ORT_TENSOR_H_
