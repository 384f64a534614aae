// Reading tensors and attributes through ONNX Runtime's C API; see ort_tensor.h.
#include "ort_tensor.h"

#include <algorithm>

namespace csrm::kernels {
namespace {

std::string input_name(const OperatorSpec& spec, size_t index) {
  return std::string(spec.name) + ": input " + spec.inputs[std::min(index, spec.n_inputs - 1)].name;
}

// The view of `value`; `wanted` is its rank in the spec.
Tensor read_value(const OrtApi& api, const OperatorSpec& spec, size_t index,
                  const OrtValue* value) {
  OrtTensorTypeAndShapeInfo* shape = nullptr;
  check(api.GetTensorTypeAndShape(value, &shape));
  Tensor tensor;
  OrtStatus* status = api.GetTensorElementType(shape, &tensor.type);
  if (status == nullptr) status = api.GetDimensionsCount(shape, &tensor.rank);
  const size_t wanted = spec.inputs[std::min(index, spec.n_inputs - 1)].rank;
  const bool has_rank =
      wanted == kAnyRank ? tensor.rank >= 1 && tensor.rank <= kMaxRank : tensor.rank == wanted;
  if (status == nullptr && has_rank) {
    status = api.GetDimensions(shape, tensor.dims.data(), tensor.rank);
  }
  api.ReleaseTensorTypeAndShapeInfo(shape);
  check(status);
  if (!has_rank) {
    const std::string allowed =
        wanted == kAnyRank ? "1 to " + std::to_string(kMaxRank) : std::to_string(wanted);
    throw std::invalid_argument(input_name(spec, index) + " has rank " +
                                std::to_string(tensor.rank) + "; it must have " + allowed);
  }
  // The engine's API is not const-correct here; the data is only read.
  void* data = nullptr;
  check(api.GetTensorMutableData(const_cast<OrtValue*>(value), &data));
  tensor.data = data;
  return tensor;
}

const OperatorSpec& spec_of(const OrtCustomOp* op) {
  return *static_cast<const Operator*>(op)->spec;
}

}  // namespace

void require(const Status& status) {
  if (!status.ok()) throw std::invalid_argument(status.message);
}

void match(const OperatorSpec& spec, size_t index, const Tensor& input, size_t axis, int64_t size,
           const char* dimension) {
  if (input.dims[axis] == size) return;
  throw std::invalid_argument(input_name(spec, index) + " has " + std::to_string(input.dims[axis]) +
                              " along axis " + std::to_string(axis) + "; " + dimension + " is " +
                              std::to_string(size));
}

int64_t Node::int_attribute(const char* name) const {
  int64_t value = 0;
  check(api_.KernelInfoGetAttribute_int64(info_, name, &value));
  return value;
}

float Node::float_attribute(const char* name) const {
  float value = 0;
  check(api_.KernelInfoGetAttribute_float(info_, name, &value));
  return value;
}

std::string Node::text_attribute(const char* name, const char* absent) const {
  char text[16] = {};
  size_t size = sizeof(text);
  OrtStatus* failed = api_.KernelInfoGetAttribute_string(info_, name, text, &size);
  if (failed == nullptr) return text;
  api_.ReleaseStatus(failed);
  // The engine reports the size of an attribute that does not fit.
  if (size <= sizeof(text)) return absent;
  throw std::invalid_argument(std::string(spec_.name) + ": attribute " + name + " has " +
                              std::to_string(size - 1) + " characters; no value is that long");
}

Isa Node::isa() const {
  if (const auto isa = isa_named(text_attribute("isa", ""))) return *isa;
  throw std::invalid_argument(std::string(spec_.name) +
                              ": attribute isa is none of portable, avx2, avx512, amx");
}

std::optional<Tensor> Node::constant(size_t index) const {
  int is_constant = 0;
  const OrtValue* value = nullptr;
  check(api_.KernelInfoGetConstantInput_tensor(info_, index, &is_constant, &value));
  if (is_constant == 0 || value == nullptr) return std::nullopt;
  return read_value(api_, spec_, index, value);
}

Tensor Node::initialiser(size_t index) const {
  if (auto tensor = constant(index)) return *tensor;
  throw std::invalid_argument(input_name(spec_, index) +
                              " must be an initialiser, because it is packed once");
}

bool Node::has_input(size_t index) const {
  size_t n_inputs = 0, size = 0;
  check(api_.KernelInfo_GetInputCount(info_, &n_inputs));
  if (index >= n_inputs) return false;
  check(api_.KernelInfo_GetInputName(info_, index, nullptr, &size));
  return size > 1;  // an input that is left out has an empty name
}

size_t Call::n_inputs() const {
  size_t n = 0;
  check(api_.KernelContext_GetInputCount(context_, &n));
  return n;
}

Tensor Call::input(size_t index) const {
  const OrtValue* value = nullptr;
  check(api_.KernelContext_GetInput(context_, index, &value));
  if (value == nullptr) return Tensor();
  return read_value(api_, spec_, index, value);
}

void* Call::output_data(size_t index, const Tensor& like) const {
  OrtValue* value = nullptr;
  check(api_.KernelContext_GetOutput(context_, index, like.dims.data(), like.rank, &value));
  if (value == nullptr) return nullptr;
  void* data = nullptr;
  check(api_.GetTensorMutableData(value, &data));
  return data;
}

Call::Memory Call::memory(size_t n_bytes) const {
  OrtMemoryInfo* where = nullptr;
  check(api_.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &where));
  OrtAllocator* allocator = nullptr;
  OrtStatus* status = api_.KernelContext_GetAllocator(context_, where, &allocator);
  api_.ReleaseMemoryInfo(where);
  check(status);
  void* memory = nullptr;
  status = api_.AllocatorAlloc(allocator, n_bytes, &memory);
  if (status != nullptr) api_.ReleaseAllocator(allocator);
  check(status);
  return Memory(memory, Free{&api_, allocator});
}

void Call::Free::operator()(void* memory) const noexcept {
  if (OrtStatus* status = api->AllocatorFree(allocator, memory)) api->ReleaseStatus(status);
  api->ReleaseAllocator(allocator);
}

void* Call::gpu_stream() const {
  void* stream = nullptr;
  check(api_.KernelContext_GetGPUComputeStream(context_, &stream));
  return stream;
}

void Call::parallel_for(size_t n_tasks, void (*task)(void*, size_t), void* arguments) const {
  if (n_tasks == 0) return;
  if (n_tasks == 1) return task(arguments, 0);
  check(api_.KernelContext_ParallelFor(context_, task, n_tasks, 0, arguments));
}

Operator described_operator(const OperatorSpec& spec) {
  Operator op{};
  op.spec = &spec;
  op.version = ORT_API_VERSION;
  op.GetName = [](const OrtCustomOp* self) { return spec_of(self).name; };
  op.GetExecutionProviderType = [](const OrtCustomOp* self) { return spec_of(self).provider; };
  op.GetInputTypeCount = [](const OrtCustomOp* self) { return spec_of(self).n_inputs; };
  op.GetOutputTypeCount = [](const OrtCustomOp* self) { return spec_of(self).n_outputs; };
  op.GetInputType = [](const OrtCustomOp* self, size_t index) {
    return spec_of(self).inputs[index].type;
  };
  op.GetOutputType = [](const OrtCustomOp* self, size_t index) {
    const OperatorSpec& described = spec_of(self);
    const auto optional = described.optional_output_type;
    const bool is_other =
        described.is_optional_output(index) && optional != ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    return is_other ? optional : described.output_type;
  };
  op.GetInputCharacteristic = [](const OrtCustomOp* self, size_t index) {
    return spec_of(self).inputs[index].kind;
  };
  op.GetOutputCharacteristic = [](const OrtCustomOp* self, size_t index) {
    return spec_of(self).is_optional_output(index) ? INPUT_OUTPUT_OPTIONAL : INPUT_OUTPUT_REQUIRED;
  };
  op.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
  op.GetVariadicInputMinArity = [](const OrtCustomOp*) { return 1; };
  op.GetVariadicInputHomogeneity = [](const OrtCustomOp* self) {
    const OperatorSpec& described = spec_of(self);
    const auto type = described.inputs[described.n_inputs - 1].type;
    return type != ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED ? 1 : 0;
  };
  op.GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 1; };
  op.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
  op.GetStartVersion = [](const OrtCustomOp*) { return 1; };
  op.GetEndVersion = [](const OrtCustomOp*) { return 1; };
  return op;
}

}  // namespace csrm::kernels
