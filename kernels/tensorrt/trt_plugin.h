// What csrm's TensorRT plugins share: one class that is all of TensorRT's plugin interfaces and
// leaves what differs to an Operator, and its creator. Not: any operator (trt_reward_head.cc,
// trt_prefix_attention.cc, trt_add_norm.cc) and no arithmetic, which is that of kernels/cuda.
// Compiled against NVIDIA's headers alone: nothing here needs TensorRT's library.
#ifndef CSRM_KERNELS_TENSORRT_TRT_PLUGIN_H_
#define CSRM_KERNELS_TENSORRT_TRT_PLUGIN_H_

#include <NvInferRuntime.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "csrm/status.h"
#include "kernels/cuda/dtype.h"

namespace csrm::kernels::tensorrt {

constexpr char kNamespace[] = "csrm";
constexpr char kVersion[] = "1";

// One attribute of an operator: a name and where its value lies. Integers are 32 bits wide, as
// TensorRT's ONNX parser hands them on.
struct Attribute {
  const char* name;
  int32_t* integer;  // one of the two, the other is null
  float* real;
};

// Fills every attribute from `fields`. Errors: BadArgument (missing, unknown, given twice, of
// another type or not one value).
Status read_attributes(const char* plugin, const nvinfer1::PluginFieldCollection* fields,
                       const std::vector<Attribute>& attributes);

// The fields of the attributes' present values; they point into the attributes.
std::vector<nvinfer1::PluginField> fields_of(const std::vector<Attribute>& attributes);

// Tells TensorRT's logger, if it gave one, what was wrong. Thread-safe.
void report(const char* plugin, const std::string& message) noexcept;

Status bad_argument(const char* plugin, const std::string& message);

// The element type of kernels/cuda that is TensorRT's. Errors: Unsupported.
Result<cuda::DType> dtype_of(const char* plugin, nvinfer1::DataType type);

inline bool is_linear(const nvinfer1::PluginTensorDesc& tensor, nvinfer1::DataType type) {
  return tensor.format == nvinfer1::TensorFormat::kLINEAR && tensor.type == type;
}

// fp32, fp16 or bf16, dense.
inline bool is_linear_real(const nvinfer1::PluginTensorDesc& tensor) {
  using nvinfer1::DataType;
  return is_linear(tensor, DataType::kFLOAT) || is_linear(tensor, DataType::kHALF) ||
         is_linear(tensor, DataType::kBF16);
}

// An Operator is a copyable struct with
//   kName, kInputs, kOutputs
//   attributes()                      where its values lie
//   check()                           Status: whether the values are an operator's
//   takes(position, tensors)          whether `tensors[position]` fits those before it
//   output_type(index, input types)
//   output_shapes(inputs, outputs, builder)
//   check_shapes(inputs)              Status, called before the first call of a shape
//   workspace_bytes(inputs)           for those shapes
//   enqueue(inputs, tensors, results, workspace, stream)
template <typename Operator>
class Plugin final : public nvinfer1::IPluginV3,
                     public nvinfer1::IPluginV3OneCore,
                     public nvinfer1::IPluginV3OneBuild,
                     public nvinfer1::IPluginV3OneRuntime {
 public:
  explicit Plugin(const Operator& op) : op_(op) {}

  nvinfer1::IPluginCapability* getCapabilityInterface(
      nvinfer1::PluginCapabilityType type) noexcept override {
    switch (type) {
      case nvinfer1::PluginCapabilityType::kCORE:
        return static_cast<nvinfer1::IPluginV3OneCore*>(this);
      case nvinfer1::PluginCapabilityType::kBUILD:
        return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
      case nvinfer1::PluginCapabilityType::kRUNTIME:
        return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }
  nvinfer1::IPluginV3* clone() noexcept override { return new (std::nothrow) Plugin(op_); }

  const char* getPluginName() const noexcept override { return Operator::kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

  int32_t getNbOutputs() const noexcept override { return Operator::kOutputs; }

  int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc*, int32_t n_inputs,
                          const nvinfer1::DynamicPluginTensorDesc*,
                          int32_t n_outputs) noexcept override {
    return has_counts(n_inputs, n_outputs) ? 0 : 1;
  }

  int32_t getOutputDataTypes(nvinfer1::DataType* types, int32_t n_outputs,
                             const nvinfer1::DataType* inputs,
                             int32_t n_inputs) const noexcept override {
    if (!has_counts(n_inputs, n_outputs)) return 1;
    for (int32_t i = 0; i < n_outputs; ++i) types[i] = op_.output_type(i, inputs);
    return 0;
  }

  int32_t getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t n_inputs,
                          const nvinfer1::DimsExprs*, int32_t, nvinfer1::DimsExprs* outputs,
                          int32_t n_outputs, nvinfer1::IExprBuilder& builder) noexcept override {
    if (!has_counts(n_inputs, n_outputs)) return 1;
    return guarded([&] { return op_.output_shapes(inputs, outputs, builder); });
  }

  bool supportsFormatCombination(int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors,
                                 int32_t n_inputs, int32_t n_outputs) noexcept override {
    return has_counts(n_inputs, n_outputs) && position >= 0 && position < n_inputs + n_outputs &&
           op_.takes(position, tensors);
  }

  size_t getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t n_inputs,
                          const nvinfer1::DynamicPluginTensorDesc*,
                          int32_t n_outputs) const noexcept override {
    if (!has_counts(n_inputs, n_outputs)) return 0;
    nvinfer1::PluginTensorDesc largest[Operator::kInputs];
    for (int32_t i = 0; i < n_inputs; ++i) {
      largest[i] = inputs[i].desc;
      largest[i].dims = inputs[i].max;
    }
    return op_.workspace_bytes(largest);
  }

  int32_t onShapeChange(const nvinfer1::PluginTensorDesc* inputs, int32_t n_inputs,
                        const nvinfer1::PluginTensorDesc*, int32_t n_outputs) noexcept override {
    if (!has_counts(n_inputs, n_outputs)) return 1;
    return guarded([&] { return op_.check_shapes(inputs); });
  }

  int32_t enqueue(const nvinfer1::PluginTensorDesc* inputs, const nvinfer1::PluginTensorDesc*,
                  const void* const* tensors, void* const* results, void* workspace,
                  cudaStream_t stream) noexcept override {
    return guarded([&] { return op_.enqueue(inputs, tensors, results, workspace, stream); });
  }

  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override {
    return clone();
  }

  const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override {
    fields_ = fields_of(op_.attributes());
    collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
    return &collection_;
  }

 private:
  static bool has_counts(int32_t n_inputs, int32_t n_outputs) noexcept {
    if (n_inputs == Operator::kInputs && n_outputs == Operator::kOutputs) return true;
    report(Operator::kName, "another number of inputs or outputs than the operator has");
    return false;
  }

  // 0, or 1 with the reason reported. Nothing may be thrown into TensorRT.
  template <typename Work>
  static int32_t guarded(Work&& work) noexcept {
    try {
      const Status status = work();
      if (status.ok()) return 0;
      report(Operator::kName, status.message);
    } catch (const std::exception&) {
      report(Operator::kName, "out of memory");
    }
    return 1;
  }

  Operator op_;
  std::vector<nvinfer1::PluginField> fields_;  // of getFieldsToSerialize()
  nvinfer1::PluginFieldCollection collection_{};
};

template <typename Operator>
class Creator final : public nvinfer1::IPluginCreatorV3One {
 public:
  Creator() {
    names_ = fields_of(like_.attributes());
    for (nvinfer1::PluginField& field : names_) field.data = nullptr;
    collection_ = {static_cast<int32_t>(names_.size()), names_.data()};
  }

  // The fields are the operator's attributes. Null, with the reason reported, unless all are given
  // and their values are allowed.
  nvinfer1::IPluginV3* createPlugin(const char*, const nvinfer1::PluginFieldCollection* fields,
                                    nvinfer1::TensorRTPhase) noexcept override {
    try {
      Operator op;
      Status status = read_attributes(Operator::kName, fields, op.attributes());
      if (status.ok()) status = op.check();
      if (status.ok()) return new Plugin<Operator>(op);
      report(Operator::kName, status.message);
    } catch (const std::exception&) {
      report(Operator::kName, "out of memory");
    }
    return nullptr;
  }

  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }
  const char* getPluginName() const noexcept override { return Operator::kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

 private:
  Operator like_;
  std::vector<nvinfer1::PluginField> names_;
  nvinfer1::PluginFieldCollection collection_{};
};

// Static storage.
nvinfer1::IPluginCreatorInterface* reward_head_creator();
nvinfer1::IPluginCreatorInterface* prefix_attention_creator();
nvinfer1::IPluginCreatorInterface* add_norm_creator();

}  // namespace csrm::kernels::tensorrt

#endif  // CSRM_KERNELS_TENSORRT_TRT_PLUGIN_H_
