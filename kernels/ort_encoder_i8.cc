// EncoderI8 as an operator of ONNX Runtime: input_ids, position_ids, segment_ids, visible,
// pooled_at, prefix_key, prefix_value and all weights -> key, value, pooled; attributes layers,
// heads, head_dim, scale, epsilon, levels, products, isa. The weights, all initialisers, come in
// the order of WeightReader; those of linear layers as LinearI8 has them.
// Not: its checks (encoder_i8.h) and arithmetic (encoder_i8_run.h).
#include <iterator>
#include <new>
#include <utility>

#include "call_hints.h"
#include "encoder_i8.h"
#include "encoder_i8_run.h"
#include "ort_operators.h"
#include "phases.h"

namespace csrm::kernels {
namespace {

enum Input : size_t {
  kInputIds,
  kPositionIds,
  kSegmentIds,
  kVisible,
  kPooledAt,
  kPrefixKey,
  kPrefixValue,
  kWeights
};
enum Output : size_t { kKey, kValue, kPooled, kOutputs };

constexpr InputSpec kInputs[] = {
    {"input_ids", 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},
    {"position_ids", 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},
    {"segment_ids", 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},
    {"visible", 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},
    {"pooled_at", 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},
    {"prefix_key", 4},
    {"prefix_value", 4},
    {"weights", kAnyRank, ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED, INPUT_OUTPUT_VARIADIC},
};
constexpr OperatorSpec kSpec{"EncoderI8", kInputs, std::size(kInputs), kOutputs};

// Reads the weights in their order: tokens, their scale [.., 1], positions, segments and the norm
// of the embeddings; per layer query of the last one, key_value, attended, attention_norm, up, down
// and, but of the last one, output_norm; a linear layer is weight, scale, bias, a norm weight,
// bias.
class WeightReader {
 public:
  explicit WeightReader(const Node& node) : node_(node), levels_(node.int_attribute("levels")) {}

  LinearI8Params linear(bool has_gelu) {
    const Tensor weight = next(2, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8);
    const Tensor scale = next(1, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
    const Tensor bias = next(1, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
    match(kSpec, kWeights, scale, 0, weight.dims[1], "N");
    match(kSpec, kWeights, bias, 0, weight.dims[1], "N");
    LinearI8Params p{};
    p.values = static_cast<const int8_t*>(weight.data);
    p.scale = scale.floats();
    p.bias = bias.floats();
    p.n_in = weight.dims[0];
    p.n_out = weight.dims[1];
    p.levels = levels_;
    p.has_gelu = has_gelu;
    return p;
  }

  EmbeddingParams embedding(int64_t hidden) {
    const Tensor tokens = table(hidden, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8);
    const Tensor scale = table(1, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
    const Tensor positions = table(hidden, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
    const Tensor segments = table(hidden, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
    match(kSpec, kWeights, scale, 0, tokens.dims[0], "the number of tokens");
    EmbeddingParams p{};
    p.tokens = static_cast<const int8_t*>(tokens.data);
    p.scale = scale.floats();
    p.positions = positions.floats();
    p.segments = segments.floats();
    p.norm = norm(hidden);
    p.n_tokens = tokens.dims[0];
    p.n_positions = positions.dims[0];
    p.n_segments = segments.dims[0];
    return p;
  }

  NormParams norm(int64_t hidden) {
    const Tensor weight = next(1, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
    const Tensor bias = next(1, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
    match(kSpec, kWeights, weight, 0, hidden, "hidden");
    match(kSpec, kWeights, bias, 0, hidden, "hidden");
    return {weight.floats(), bias.floats()};
  }

  size_t n_read() const { return index_ - kWeights; }

 private:
  Tensor table(int64_t width, ONNXTensorElementDataType type) {
    const Tensor tensor = next(2, type);
    match(kSpec, kWeights, tensor, 1, width, "its width");
    return tensor;
  }
  Tensor next(size_t rank, ONNXTensorElementDataType type) {
    if (!node_.has_input(index_)) {
      throw std::invalid_argument("EncoderI8: there are " + std::to_string(n_read()) +
                                  " weights, fewer than those of all layers");
    }
    const Tensor tensor = node_.initialiser(index_++);
    if (tensor.rank == rank && tensor.type == type) return tensor;
    throw std::invalid_argument("EncoderI8: weight " + std::to_string(n_read() - 1) +
                                " has another rank or type than its place asks for");
  }

  const Node& node_;
  int64_t levels_;
  size_t index_ = kWeights;
};

EncoderLayerParams read_layer(WeightReader* reader, int64_t hidden, bool is_last) {
  EncoderLayerParams layer;
  if (is_last) layer.query = reader->linear(false);
  layer.key_value = reader->linear(false);
  layer.attended = reader->linear(false);
  layer.attention_norm = reader->norm(hidden);
  layer.up = reader->linear(true);
  layer.down = reader->linear(false);
  if (!is_last) layer.output_norm = reader->norm(hidden);
  return layer;
}

EncoderI8 made(const Node& node) {
  EncoderI8Params p{};
  p.n_heads = node.int_attribute("heads");
  p.head_dim = node.int_attribute("head_dim");
  p.scale = node.float_attribute("scale");
  p.epsilon = node.float_attribute("epsilon");
  p.is_bf16 = is_bf16(node);
  WeightReader reader(node);
  p.embedding = reader.embedding(p.n_heads * p.head_dim);
  const int64_t n_layers = node.int_attribute("layers");
  for (int64_t i = 0; i < n_layers; ++i) {
    p.layers.push_back(read_layer(&reader, p.n_heads * p.head_dim, i + 1 == n_layers));
  }
  if (node.has_input(kWeights + reader.n_read())) {
    throw std::invalid_argument("EncoderI8: there are more weights than those of " +
                                std::to_string(n_layers) + " layers");
  }
  Result<EncoderI8> layers = EncoderI8::make(p, node.isa());
  require(layers.status());
  return std::move(layers).value();
}

class EncoderI8Kernel {
 public:
  explicit EncoderI8Kernel(const Node& node) : layers_(made(node)) {}

  void compute(const Call& call) const;

 private:
  EncoderI8Call read(const Call& call) const;

  EncoderI8 layers_;
};

EncoderI8Call EncoderI8Kernel::read(const Call& call) const {
  const Tensor ids = call.input(kInputIds), pooled_at = call.input(kPooledAt);
  const Tensor prefix[2] = {call.input(kPrefixKey), call.input(kPrefixValue)};
  EncoderI8Call c{};
  c.n_batch = ids.dims[0];
  c.n_tokens = ids.dims[1];
  c.n_pooled = pooled_at.dims[1];
  c.n_prefix = prefix[0].dims[2];
  const int64_t* of_tokens[kVisible + 1] = {ids.ints()};
  for (size_t i = kPositionIds; i <= kVisible; ++i) {
    const Tensor tensor = call.input(i);
    match(kSpec, i, tensor, 0, c.n_batch, "B");
    match(kSpec, i, tensor, 1, c.n_tokens, "T");
    of_tokens[i] = tensor.ints();
  }
  match(kSpec, kPooledAt, pooled_at, 0, c.n_batch, "B");
  for (size_t i = 0; i < 2; ++i) {
    match(kSpec, kPrefixKey + i, prefix[i], 0, layers_.n_layers(), "layers");
    match(kSpec, kPrefixKey + i, prefix[i], 1, layers_.n_heads(), "heads");
    match(kSpec, kPrefixKey + i, prefix[i], 2, c.n_prefix, "P");
    match(kSpec, kPrefixKey + i, prefix[i], 3, layers_.head_dim(), "head_dim");
  }
  c.input_ids = of_tokens[kInputIds];
  c.position_ids = of_tokens[kPositionIds];
  c.segment_ids = of_tokens[kSegmentIds];
  c.visible = of_tokens[kVisible];
  c.pooled_at = pooled_at.ints();
  c.prefix_key = prefix[0].floats();
  c.prefix_value = prefix[1].floats();
  Tensor kept;
  kept.rank = 5;
  kept.dims = {c.n_batch, layers_.n_layers(), layers_.n_heads(), c.n_tokens, layers_.head_dim()};
  float* const outputs[2] = {call.output(kKey, kept), call.output(kValue, kept)};
  const CallHints& hints = thread_call_hints();
  if (hints.wants_key_value) {
    c.key = outputs[0];
    c.value = outputs[1];
  }
  const int64_t n_heads = layers_.n_layers() * layers_.n_heads();
  if (c.n_prefix > 0 && layers_.reads_packed() && hints.packed_prefix != nullptr &&
      hints.packed_prefix->begin(n_heads, c.n_prefix, layers_.head_dim())) {
    c.packed_prefix = hints.packed_prefix;
  }
  Tensor pooled;
  pooled.rank = 3;
  pooled.dims = {c.n_batch, c.n_pooled, layers_.hidden()};
  c.pooled = call.output(kPooled, pooled);
  return c;
}

void EncoderI8Kernel::compute(const Call& call) const {
  const EncoderI8Call c = read(call);
  require(layers_.check(c));
  const Call::Memory workspace = call.memory(EncoderI8Run::workspace_size(layers_, c));
  EncoderI8Run encoder_run(layers_, c, workspace.get());
  Phases<EncoderI8Run> phases(&encoder_run);
  // The engine has fewer threads, or those that come last find nothing left to do.
  constexpr size_t kMostThreads = 64;
  call.parallel_for(
      kMostThreads, [](void* p, size_t) { static_cast<Phases<EncoderI8Run>*>(p)->run(); }, &phases);
  if (encoder_run.has_failed()) throw std::bad_alloc();
}

}  // namespace

const OrtCustomOp& encoder_i8_operator() {
  static const Operator* const op = new Operator(make_operator<EncoderI8Kernel>(kSpec));
  return *op;
}

}  // namespace csrm::kernels
