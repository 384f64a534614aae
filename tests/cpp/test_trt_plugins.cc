// csrm's TensorRT plugins on the host: what TensorRT asks of them at build and run time (types,
// shapes, attributes, scratch memory), and what they hand to the launchers of kernels/cuda, which
// are stand-ins here. Not: the kernels (tests/cpp/cuda) and not TensorRT, which is not linked.
#include <NvInferRuntime.h>

#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "check.h"
#include "kernels/cuda/add_norm.h"
#include "kernels/cuda/prefix_attention.h"
#include "kernels/cuda/reward_head.h"

extern "C" void setLoggerFinder(nvinfer1::ILoggerFinder* finder);
extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& n_creators);

namespace {
csrm::kernels::cuda::RewardHeadParams launched_head;
csrm::kernels::cuda::PrefixAttentionParams launched_attention;
csrm::kernels::cuda::AddNormParams launched_norm;
csrm::Status launch_status;
constexpr size_t kScratchPerRow = 16;
}  // namespace

namespace csrm::kernels::cuda {
Status reward_head(const RewardHeadParams& params, cudaStream_t) {
  launched_head = params;
  return launch_status;
}
Status prefix_attention(const PrefixAttentionParams& params, cudaStream_t) {
  launched_attention = params;
  return launch_status;
}
size_t prefix_attention_workspace_bytes(const PrefixAttentionParams& p) {
  return static_cast<size_t>(p.n_batch * p.n_queries) * kScratchPerRow;
}
Status add_norm(const AddNormParams& params, cudaStream_t) {
  launched_norm = params;
  return launch_status;
}
}  // namespace csrm::kernels::cuda

namespace {

using namespace nvinfer1;
namespace cuda = csrm::kernels::cuda;

// A dimension that is a number, and a builder of such dimensions.
class Number final : public IDimensionExpr, public apiv::VDimensionExpr {
 public:
  explicit Number(int64_t value) : value_(value) { mImpl = this; }
  ~Number() noexcept override = default;
  bool isConstant() const override { return true; }
  int64_t getConstantValue() const override { return value_; }
  bool isSizeTensor() const override { return false; }

 private:
  int64_t value_;
};

int64_t size_of(const IDimensionExpr* expression) { return expression->getConstantValue(); }

class Numbers final : public IExprBuilder, public apiv::VExprBuilder {
 public:
  Numbers() { mImpl = this; }
  ~Numbers() noexcept override = default;
  const IDimensionExpr* constant(int64_t value) override {
    made_.push_back(std::make_unique<Number>(value));
    return made_.back().get();
  }
  const IDimensionExpr* operation(DimensionOperation, const IDimensionExpr&,
                                  const IDimensionExpr&) override {
    return nullptr;
  }
  const IDimensionExpr* declareSizeTensor(int32_t, const IDimensionExpr&,
                                          const IDimensionExpr&) override {
    return nullptr;
  }

 private:
  std::vector<std::unique_ptr<Number>> made_;
};

class Messages final : public ILoggerFinder, public ILogger {
 public:
  ILogger* findLogger() override { return this; }
  void log(Severity severity, const char* message) noexcept override {
    CHECK(severity == Severity::kERROR);
    last = message;
  }
  std::string last;
};

Messages messages;

bool said(const char* words) {
  const bool found = messages.last.find(words) != std::string::npos;
  if (!found) std::printf("the message is: %s\n", messages.last.c_str());
  return found;
}

IPluginCreatorV3One* creator_of(const char* name) {
  int32_t n = 0;
  IPluginCreatorInterface* const* creators = getCreators(n);
  for (int32_t i = 0; i < n; ++i) {
    auto* creator = static_cast<IPluginCreatorV3One*>(creators[i]);
    if (std::strcmp(creator->getPluginName(), name) == 0) return creator;
  }
  return nullptr;
}

struct Fields {
  std::vector<PluginField> list;
  PluginFieldCollection collection{};
  const PluginFieldCollection* get() {
    collection = {static_cast<int32_t>(list.size()), list.data()};
    return &collection;
  }
};

PluginField integer(const char* name, const int32_t* value) {
  return {name, value, PluginFieldType::kINT32, 1};
}
PluginField real(const char* name, const float* value) {
  return {name, value, PluginFieldType::kFLOAT32, 1};
}

using Made = std::unique_ptr<IPluginV3>;

Made make(const char* name, Fields fields) {
  messages.last.clear();
  return Made(creator_of(name)->createPlugin("node", fields.get(), TensorRTPhase::kBUILD));
}

IPluginV3OneBuild* build_of(const Made& plugin) {
  return static_cast<IPluginV3OneBuild*>(
      plugin->getCapabilityInterface(PluginCapabilityType::kBUILD));
}
IPluginV3OneRuntime* runtime_of(const Made& plugin) {
  return static_cast<IPluginV3OneRuntime*>(
      plugin->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
}
IPluginV3OneCore* core_of(const Made& plugin) {
  return static_cast<IPluginV3OneCore*>(
      plugin->getCapabilityInterface(PluginCapabilityType::kCORE));
}

Dims dims_of(std::vector<int64_t> sizes) {
  Dims dims{};
  dims.nbDims = static_cast<int32_t>(sizes.size());
  for (size_t i = 0; i < sizes.size(); ++i) dims.d[i] = sizes[i];
  return dims;
}

PluginTensorDesc tensor(DataType type, std::vector<int64_t> sizes,
                        TensorFormat format = TensorFormat::kLINEAR) {
  PluginTensorDesc made{};
  made.dims = dims_of(std::move(sizes));
  made.type = type;
  made.format = format;
  return made;
}

std::vector<DynamicPluginTensorDesc> dynamic(const std::vector<PluginTensorDesc>& tensors) {
  std::vector<DynamicPluginTensorDesc> made(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    made[i].desc = tensors[i];
    made[i].min = made[i].opt = made[i].max = tensors[i].dims;
  }
  return made;
}

DimsExprs expressions_of(const Dims& dims, Numbers* numbers) {
  DimsExprs made{};
  made.nbDims = dims.nbDims;
  for (int32_t i = 0; i < dims.nbDims; ++i) made.d[i] = numbers->constant(dims.d[i]);
  return made;
}

constexpr int32_t kOne = 1, kTwo = 2, kThree = 3, kFour = 4, kEight = 8;
constexpr float kEpsilon = 1e-6f, kScale = 0.25f;

Fields head_fields() { return {{integer("n_safe", &kTwo), real("epsilon", &kEpsilon)}, {}}; }

Fields attention_fields() {
  static constexpr int32_t key_offset = 16, value_offset = 24;
  static constexpr int32_t kZero = 0;
  return {
      {integer("heads", &kFour), integer("kv_heads", &kTwo), integer("head_dim", &kFour),
       integer("layer", &kOne), integer("query_offset", &kZero), integer("key_offset", &key_offset),
       integer("value_offset", &value_offset), real("scale", &kScale)},
      {}};
}

// B = 3, T = 5, J = 2, H = 8, V = 4; then the two outputs.
std::vector<PluginTensorDesc> head_tensors(DataType type) {
  const DataType f = DataType::kFLOAT;
  return {tensor(type, {3, 5, 8}), tensor(DataType::kINT64, {3, 2}),
          tensor(f, {8}),          tensor(f, {8}),
          tensor(f, {4, 8}),       tensor(f, {4}),
          tensor(f, {2}),          tensor(f, {3, 2}),
          tensor(f, {3, 2})};
}

// B = 3, Q = T = 5, P = 7, 4 heads over 2 of keys, D = 4, columns query 16, key 8, value 8.
std::vector<PluginTensorDesc> attention_tensors(DataType type) {
  return {tensor(type, {3, 5, 32}),   tensor(type, {3, 5, 32}),         tensor(type, {2, 2, 7, 4}),
          tensor(type, {2, 2, 7, 4}), tensor(DataType::kINT64, {3, 5}), tensor(type, {3, 5, 16})};
}

void test_creators_are_csrm_operators_with_their_attributes() {
  int32_t n = 0;
  getCreators(n);
  CHECK(n == 3);
  const struct {
    const char* name;
    int32_t n_fields;
  } operators[] = {{"RewardHead", 2}, {"PrefixAttention", 8}, {"AddNorm", 1}};
  for (const auto& op : operators) {
    IPluginCreatorV3One* creator = creator_of(op.name);
    CHECK(creator != nullptr);
    if (creator == nullptr) continue;
    CHECK(std::string(creator->getPluginNamespace()) == "csrm");
    CHECK(std::string(creator->getPluginVersion()) == "1");
    CHECK(creator->getFieldNames()->nbFields == op.n_fields);
    CHECK(std::string(creator->getInterfaceInfo().kind) == "PLUGIN CREATOR_V3ONE");
  }
}

void test_create_bad_attribute_is_refused_with_its_name() {
  const int32_t too_many = 64, none = 0;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const int64_t beyond = int64_t{1} << 40;
  const struct {
    const char* plugin;
    Fields fields;
    const char* words;
  } cases[] = {
      {"RewardHead", {{integer("n_safe", &kTwo)}, {}}, "epsilon is missing"},
      {"RewardHead",
       {{integer("n_safe", &too_many), real("epsilon", &kEpsilon)}, {}},
       "n_safe is 64"},
      {"RewardHead", {{integer("n_safe", &none), real("epsilon", &kEpsilon)}, {}}, "n_safe is 0"},
      {"RewardHead", {{integer("n_safe", &kTwo), real("epsilon", &nan)}, {}}, "epsilon must be"},
      {"RewardHead", {{real("n_safe", &kEpsilon), real("epsilon", &kEpsilon)}, {}}, "integer"},
      {"RewardHead", {{integer("n_safe", &kTwo), integer("epsilon", &kTwo)}, {}}, "fp32 number"},
      {"RewardHead", {{integer("n_safe", &kTwo), integer("n_safe", &kTwo)}, {}}, "given twice"},
      {"RewardHead", {{integer("other", &kTwo)}, {}}, "not known"},
      {"RewardHead", {{{"n_safe", &kTwo, PluginFieldType::kINT32, 2}}, {}}, "one value"},
      {"RewardHead", {{{"n_safe", nullptr, PluginFieldType::kINT32, 1}}, {}}, "one value"},
      {"RewardHead", {{{"n_safe", &beyond, PluginFieldType::kINT64, 1}}, {}}, "beyond 32 bits"},
      {"AddNorm", {{real("epsilon", &nan)}, {}}, "epsilon must be"},
      {"AddNorm", {{}, {}}, "epsilon is missing"},
  };
  for (const auto& each : cases) {
    CHECK(make(each.plugin, each.fields) == nullptr);
    CHECK(said(each.words));
    CHECK(said(each.plugin));
  }
  CHECK(creator_of("AddNorm")->createPlugin("node", nullptr, TensorRTPhase::kRUNTIME) == nullptr);
  CHECK(said("no attributes"));
  const struct {
    size_t field;
    int32_t value;
    const char* words;
  } attention[] = {
      {0, 3, "3 heads over 2"}, {2, 257, "head_dim is 257"}, {3, -1, "layer"}, {4, -8, "offsets"}};
  for (const auto& each : attention) {
    Fields fields = attention_fields();
    fields.list[each.field].data = &each.value;
    CHECK(make("PrefixAttention", fields) == nullptr);
    CHECK(said(each.words));
  }
}

void test_serialised_fields_make_the_same_plugin() {
  Made first = make("PrefixAttention", attention_fields());
  CHECK(first != nullptr);
  const PluginFieldCollection* kept = runtime_of(first)->getFieldsToSerialize();
  CHECK(kept->nbFields == 8);
  Made second(creator_of("PrefixAttention")->createPlugin("node", kept, TensorRTPhase::kRUNTIME));
  CHECK(second != nullptr);
  const PluginFieldCollection* again = runtime_of(second)->getFieldsToSerialize();
  for (int32_t i = 0; i < kept->nbFields; ++i) {
    CHECK(std::strcmp(kept->fields[i].name, again->fields[i].name) == 0);
    CHECK(kept->fields[i].type == again->fields[i].type);
    CHECK(std::memcmp(kept->fields[i].data, again->fields[i].data, 4) == 0);
  }
  CHECK(std::string(core_of(second)->getPluginName()) == "PrefixAttention");
  Made copy(second->clone());
  Made attached(runtime_of(copy)->attachToContext(nullptr));
  CHECK(attached != nullptr && attached.get() != copy.get());
  CHECK(*static_cast<const int32_t*>(
            runtime_of(attached)->getFieldsToSerialize()->fields[5].data) == 16);
}

// Whether the plugin takes `tensors`, each beside those before it.
bool takes_all(const Made& plugin, const std::vector<PluginTensorDesc>& tensors, int32_t n_inputs) {
  const std::vector<DynamicPluginTensorDesc> all = dynamic(tensors);
  const auto n = static_cast<int32_t>(tensors.size());
  for (int32_t i = 0; i < n; ++i) {
    if (!build_of(plugin)->supportsFormatCombination(i, all.data(), n_inputs, n - n_inputs)) {
      return false;
    }
  }
  return true;
}

void test_formats_are_dense_and_of_one_real_type() {
  const Made head = make("RewardHead", head_fields());
  const Made attention = make("PrefixAttention", attention_fields());
  for (const DataType type : {DataType::kFLOAT, DataType::kHALF, DataType::kBF16}) {
    CHECK(takes_all(head, head_tensors(type), 7));
    CHECK(takes_all(attention, attention_tensors(type), 5));
  }
  CHECK(!takes_all(head, head_tensors(DataType::kINT8), 7));
  CHECK(!takes_all(attention, attention_tensors(DataType::kINT32), 5));
  std::vector<PluginTensorDesc> mixed = attention_tensors(DataType::kHALF);
  mixed[2].type = DataType::kFLOAT;  // a prefix of another type than the query
  CHECK(!takes_all(attention, mixed, 5));
  std::vector<PluginTensorDesc> packed = attention_tensors(DataType::kHALF);
  packed[0].format = TensorFormat::kCHW2;
  CHECK(!takes_all(attention, packed, 5));
  std::vector<PluginTensorDesc> narrow = head_tensors(DataType::kHALF);
  narrow[1].type = DataType::kINT32;  // pooled_at
  CHECK(!takes_all(head, narrow, 7));
  narrow = head_tensors(DataType::kHALF);
  narrow[4].type = DataType::kHALF;  // the head's rows stay fp32
  CHECK(!takes_all(head, narrow, 7));
  CHECK(!takes_all(head, head_tensors(DataType::kHALF), 6));
}

void test_output_shapes_follow_the_inputs() {
  Numbers numbers;
  const Made head = make("RewardHead", head_fields());
  std::vector<DimsExprs> in;
  for (const PluginTensorDesc& each : head_tensors(DataType::kHALF)) {
    in.push_back(expressions_of(each.dims, &numbers));
  }
  DimsExprs out[2] = {};
  CHECK(build_of(head)->getOutputShapes(in.data(), 7, nullptr, 0, out, 2, numbers) == 0);
  for (const DimsExprs& each : out) {
    CHECK(each.nbDims == 2 && size_of(each.d[0]) == 3 && size_of(each.d[1]) == 2);
  }
  in[0].nbDims = 2;
  CHECK(build_of(head)->getOutputShapes(in.data(), 7, nullptr, 0, out, 2, numbers) != 0);
  CHECK(said("[B, T, H]"));

  const Made attention = make("PrefixAttention", attention_fields());
  in.clear();
  for (const PluginTensorDesc& each : attention_tensors(DataType::kHALF)) {
    in.push_back(expressions_of(each.dims, &numbers));
  }
  CHECK(build_of(attention)->getOutputShapes(in.data(), 5, nullptr, 0, out, 1, numbers) == 0);
  CHECK(out[0].nbDims == 3 && size_of(out[0].d[1]) == 5 && size_of(out[0].d[2]) == 16);
  DataType types[2] = {};
  const DataType inputs[7] = {DataType::kBF16, DataType::kINT64};
  CHECK(build_of(head)->getOutputDataTypes(types, 2, inputs, 7) == 0);
  CHECK(types[0] == DataType::kFLOAT && types[1] == DataType::kFLOAT);
  CHECK(build_of(attention)->getOutputDataTypes(types, 1, inputs, 5) == 0);
  CHECK(types[0] == DataType::kBF16);
}

void test_shapes_that_disagree_are_refused() {
  const Made head = make("RewardHead", head_fields());
  const Made attention = make("PrefixAttention", attention_fields());
  const std::vector<PluginTensorDesc> good = head_tensors(DataType::kFLOAT);
  CHECK(runtime_of(head)->onShapeChange(good.data(), 7, &good[7], 2) == 0);
  struct Wrong {
    size_t input;
    std::vector<int64_t> sizes;
  };
  const Wrong wrong[] = {{1, {2, 2}}, {2, {7}}, {3, {1, 8}}, {4, {4, 7}},
                         {4, {2, 8}}, {5, {3}}, {6, {1}}};
  for (const auto& each : wrong) {
    std::vector<PluginTensorDesc> tensors = good;
    tensors[each.input].dims = dims_of(each.sizes);
    CHECK(runtime_of(head)->onShapeChange(tensors.data(), 7, &tensors[7], 2) != 0);
  }
  const std::vector<PluginTensorDesc> fine = attention_tensors(DataType::kHALF);
  CHECK(runtime_of(attention)->onShapeChange(fine.data(), 5, &fine[5], 1) == 0);
  const Wrong bad[] = {
      {1, {2, 5, 32}}, {2, {1, 2, 7, 4}}, {3, {2, 2, 6, 4}}, {2, {2, 2, 7}}, {4, {3, 4}}};
  for (const auto& each : bad) {
    std::vector<PluginTensorDesc> tensors = fine;
    tensors[each.input].dims = dims_of(each.sizes);
    CHECK(runtime_of(attention)->onShapeChange(tensors.data(), 5, &tensors[5], 1) != 0);
  }
}

void test_enqueue_hands_the_launcher_sizes_pointers_and_type() {
  int8_t memory[16] = {};
  const void* in[7];
  void* out[2];
  for (size_t i = 0; i < 7; ++i) in[i] = &memory[i];
  for (size_t i = 0; i < 2; ++i) out[i] = &memory[10 + i];
  const Made head = make("RewardHead", head_fields());
  std::vector<PluginTensorDesc> tensors = head_tensors(DataType::kBF16);
  CHECK(runtime_of(head)->enqueue(tensors.data(), &tensors[7], in, out, nullptr, nullptr) == 0);
  const cuda::RewardHeadParams& h = launched_head;
  CHECK(h.n_batch == 3 && h.n_tokens == 5 && h.n_pooled == 2 && h.n_hidden == 8);
  CHECK(h.n_verbalizers == 4 && h.n_safe == 2 && h.epsilon == kEpsilon);
  CHECK(h.dtype == cuda::DType::kBFloat16 && h.hidden == in[0]);
  CHECK(static_cast<const void*>(h.calibration) == in[6]);
  CHECK(static_cast<void*>(h.reward) == out[0] && static_cast<void*>(h.compliance) == out[1]);

  const Made attention = make("PrefixAttention", attention_fields());
  tensors = attention_tensors(DataType::kHALF);
  CHECK(runtime_of(attention)->enqueue(tensors.data(), &tensors[5], in, out, memory, nullptr) == 0);
  const cuda::PrefixAttentionParams& a = launched_attention;
  CHECK(a.n_batch == 3 && a.n_queries == 5 && a.n_tokens == 5 && a.n_prefix == 7);
  CHECK(a.n_heads == 4 && a.n_kv_heads == 2 && a.head_dim == 4 && a.n_layers == 2 && a.layer == 1);
  CHECK(a.query_width == 32 && a.key_value_width == 32 && a.query_offset == 0);
  CHECK(a.key_offset == 16 && a.value_offset == 24 && a.scale == kScale);
  CHECK(a.dtype == cuda::DType::kFloat16 && a.version == cuda::AttentionVersion::kBest);
  CHECK(a.workspace == memory && a.workspace_bytes == 15 * kScratchPerRow);
  CHECK(a.query == in[0] && a.prefix_value == in[3] && a.context == out[0]);
  launch_status = {csrm::Code::kEngineFailed, "PrefixAttention: no room"};
  CHECK(runtime_of(attention)->enqueue(tensors.data(), &tensors[5], in, out, memory, nullptr) != 0);
  CHECK(messages.last == "PrefixAttention: no room");
  launch_status = {};
}

void test_add_norm_rows_are_all_axes_but_the_last() {
  const Made norm = make("AddNorm", {{real("epsilon", &kEpsilon)}, {}});
  const DataType half = DataType::kHALF, f = DataType::kFLOAT;
  std::vector<PluginTensorDesc> tensors = {tensor(half, {3, 5, 8}), tensor(half, {3, 5, 8}),
                                           tensor(f, {8}), tensor(f, {8}), tensor(half, {3, 5, 8})};
  CHECK(takes_all(norm, tensors, 4));
  CHECK(runtime_of(norm)->onShapeChange(tensors.data(), 4, &tensors[4], 1) == 0);
  const void* in[4] = {&kOne, &kTwo, &kThree, &kEight};
  int8_t result = 0;
  void* out[1] = {&result};
  CHECK(runtime_of(norm)->enqueue(tensors.data(), &tensors[4], in, out, nullptr, nullptr) == 0);
  CHECK(launched_norm.n_rows == 15 && launched_norm.n_columns == 8);
  CHECK(launched_norm.y == &result && launched_norm.dtype == cuda::DType::kFloat16);
  tensors[1].dims.d[1] = 4;
  CHECK(runtime_of(norm)->onShapeChange(tensors.data(), 4, &tensors[4], 1) != 0);
}

void test_workspace_is_that_of_the_largest_shapes() {
  const Made attention = make("PrefixAttention", attention_fields());
  std::vector<DynamicPluginTensorDesc> tensors = dynamic(attention_tensors(DataType::kHALF));
  tensors[0].max = dims_of({64, 10, 32});
  tensors[0].desc.dims = dims_of({-1, -1, 32});
  CHECK(build_of(attention)->getWorkspaceSize(tensors.data(), 5, &tensors[5], 1) ==
        640 * kScratchPerRow);
}

}  // namespace

int main() {
  // Without a logger a refusal is silent, and still one.
  CHECK(make("AddNorm", {{}, {}}) == nullptr);
  setLoggerFinder(&messages);
  test_creators_are_csrm_operators_with_their_attributes();
  test_create_bad_attribute_is_refused_with_its_name();
  test_serialised_fields_make_the_same_plugin();
  test_formats_are_dense_and_of_one_real_type();
  test_output_shapes_follow_the_inputs();
  test_shapes_that_disagree_are_refused();
  test_enqueue_hands_the_launcher_sizes_pointers_and_type();
  test_add_norm_rows_are_all_axes_but_the_last();
  test_workspace_is_that_of_the_largest_shapes();
  return csrm_test::summary();
}
