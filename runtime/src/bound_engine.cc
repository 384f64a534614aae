// The blocks of memory, the bindings to them, and encode(); see bound_engine.h.
#include "bound_engine.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "device_block.h"
#include "kernels/half.h"
#include "run_shape.h"

namespace csrm {
namespace {

constexpr auto kInt64 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
constexpr auto kHalf = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;

// What the fixed blocks hold; a larger call has blocks of its own.
constexpr int64_t kFixedTokens = 4096, kFixedResults = 1024, kFixedPrefixTokens = 8192;
constexpr size_t kFixedPrefixBytes = size_t{1} << 30;
constexpr size_t kMaxBindings = 512;
constexpr char kGraphEntry[] = "gpu_graph_id";  // of ONNX Runtime's run options
constexpr char kNoGraph[] = "-1";

// Keys, then values, of one Prefix in the device's memory.
class UploadedPrefix final : public DevicePrefix {
 public:
  UploadedPrefix(DeviceBuffer buffer, size_t value_offset)
      : buffer_(std::move(buffer)), value_offset_(value_offset) {}
  char* key() const { return buffer_.data(); }
  char* value() const { return buffer_.data() + value_offset_; }
  size_t n_bytes() const { return buffer_.n_bytes(); }

 private:
  DeviceBuffer buffer_;
  size_t value_offset_;
};

struct Binding {
  Binding(const OrtApi* api, bool is_kept)
      : io(api->ReleaseIoBinding), run(api->ReleaseRunOptions), is_kept(is_kept) {}
  Handle<OrtIoBinding> io;
  Handle<OrtRunOptions> run;            // replays or captures this shape's graph
  std::set<std::thread::id> capturers;  // threads that have captured it
  bool is_kept;
};

// Where the tensors of a run lie.
struct Places {
  const DeviceBlock* block = nullptr;
  const char* prefix_key = nullptr;
  const char* prefix_value = nullptr;
  char* key = nullptr;  // outputs, if wanted
  char* value = nullptr;
};

class BoundEngine final : public Engine {
 public:
  BoundEngine(std::unique_ptr<ModelSession> session, std::shared_ptr<DeviceMemory> memory,
              bool has_graphs)
      : has_graphs_(has_graphs),
        memory_(std::move(memory)),
        dropped_(std::make_shared<DroppedBuffers>(memory_)),
        session_(std::move(session)),
        location_(session_->api()->ReleaseMemoryInfo),
        plain_run_(session_->api()->ReleaseRunOptions) {}
  ~BoundEngine() override;

  Status open();
  Status encode(const EncodeInput& in, EncodeOutput* output) const override;
  const std::string& version() const override { return session_->version(); }
  // Prefixes are floats on the host; fp16 ones are rounded on their way to the device.
  KvType kv_type() const override { return KvType::kFloat; }
  Device device() const override { return memory_->device(); }

 private:
  size_t element_bytes() const { return session_->prefix_type() == kHalf ? 2 : sizeof(float); }
  size_t prefix_bytes(int64_t n_tokens) const {
    return static_cast<size_t>(n_tokens) * session_->shape().numbers_per_token() * element_bytes();
  }
  Result<Handle<OrtRunOptions>> run_options(const std::string& graph) const;
  Result<std::shared_ptr<const DevicePrefix>> prefix_of(const EncodeInput& in) const;
  Result<std::shared_ptr<const DevicePrefix>> upload(const EncodeInput& in) const;
  Status place_prefix(const std::shared_ptr<const DevicePrefix>& prefix, bool is_kept,
                      Places* places) const;
  Status place_outputs(const RunShape& shape, Places* places) const;
  Result<Binding*> binding_of(const RunShape& shape, bool is_kept, const Places& places) const;
  Status bind(const RunShape& shape, const Places& places, Binding* binding) const;
  Status bind_tensor(OrtIoBinding* io, bool is_input, const char* name, const char* data,
                     size_t n_bytes, const std::vector<int64_t>& dims,
                     ONNXTensorElementDataType type) const;
  Status stage(const EncodeInput& in, const RunShape& shape, const DeviceBlock& block) const;
  Status run(Binding* binding) const;
  Status collect(const EncodeInput& in, const RunShape& shape, const Places& places,
                 EncodeOutput* output) const;

  const bool has_graphs_;
  const std::shared_ptr<DeviceMemory> memory_;
  const std::shared_ptr<DroppedBuffers> dropped_;
  std::unique_ptr<ModelSession> session_;
  Handle<OrtMemoryInfo> location_;
  Handle<OrtRunOptions> plain_run_;  // without a graph
  // All of this under device_mutex().
  mutable DeviceBlock fixed_, large_;
  mutable DeviceBuffer prefix_block_, output_block_;
  std::shared_ptr<const DevicePrefix> no_prefix_;            // of no tokens
  mutable std::weak_ptr<const DevicePrefix> placed_prefix_;  // what prefix_block_ holds
  mutable std::map<RunShape, Binding> bindings_;             // to the fixed blocks
  mutable std::unique_ptr<Binding> last_loose_;              // the binding of the call that runs
  mutable size_t n_graphs_ = 0;                              // captured, over all threads
};

BoundEngine::~BoundEngine() {
  const std::lock_guard<std::mutex> lock(device_mutex());
  if (!memory_->enter().ok()) return;
  bindings_.clear();
  last_loose_.reset();
  session_.reset();
  fixed_.clear();
  large_.clear();
  prefix_block_ = DeviceBuffer();
  output_block_ = DeviceBuffer();
  no_prefix_.reset();
  dropped_->free_all();
}

Result<Handle<OrtRunOptions>> BoundEngine::run_options(const std::string& graph) const {
  const OrtApi* api = session_->api();
  Handle<OrtRunOptions> made(api->ReleaseRunOptions);
  Status status = take_status(api, api->CreateRunOptions(made.out()), "run options");
  if (status.ok()) {
    status = take_status(api, api->AddRunConfigEntry(made.get(), kGraphEntry, graph.c_str()),
                         "run options");
  }
  if (!status.ok()) return status;
  return made;
}

Status BoundEngine::open() {
  const std::lock_guard<std::mutex> lock(device_mutex());
  const OrtApi* api = session_->api();
  if (Status bad = memory_->enter(); !bad.ok()) return bad;
  Status status = take_status(api,
                              api->CreateMemoryInfo(memory_->engine_name(), OrtDeviceAllocator, 0,
                                                    OrtMemTypeDefault, location_.out()),
                              "the device's memory");
  if (!status.ok()) return status;
  RunShape largest;
  largest.n_rows = 1;
  largest.row_tokens = kFixedTokens;
  largest.n_pooled = kFixedResults;
  status = fixed_.make(dropped_, memory_, input_offsets(largest).back(), kFixedResults);
  if (!status.ok()) return status;
  const size_t most = std::min(2 * aligned(prefix_bytes(kFixedPrefixTokens)), kFixedPrefixBytes);
  Result<DeviceBuffer> block = DeviceBuffer::allocate(dropped_, most);
  if (!block.ok()) return block.status();
  prefix_block_ = std::move(block).value();
  Result<std::shared_ptr<const DevicePrefix>> empty = upload({});
  if (!empty.ok()) return empty.status();
  no_prefix_ = empty.value();
  if (!has_graphs_) return Status::success();
  Result<Handle<OrtRunOptions>> plain = run_options(kNoGraph);
  if (!plain.ok()) return plain.status();
  plain_run_ = std::move(plain).value();
  return Status::success();
}

Result<std::shared_ptr<const DevicePrefix>> BoundEngine::upload(const EncodeInput& in) const {
  const size_t n_bytes = prefix_bytes(in.n_prefix_tokens);
  const size_t value_offset = aligned(n_bytes);
  Result<DeviceBuffer> buffer = DeviceBuffer::allocate(dropped_, 2 * value_offset);
  if (!buffer.ok()) return buffer.status();
  auto made = std::make_shared<UploadedPrefix>(std::move(buffer).value(), value_offset);
  const size_t n = n_bytes / element_bytes();
  std::vector<uint16_t> halves;
  const std::pair<const void*, char*> parts[] = {{in.prefix_key, made->key()},
                                                 {in.prefix_value, made->value()}};
  for (const auto& [numbers, to] : parts) {
    const void* from = numbers;
    if (session_->prefix_type() == kHalf) {
      const float* floats = static_cast<const float*>(numbers);
      halves.resize(n);
      std::transform(floats, floats + n, halves.begin(), kernels::to_half);
      from = halves.data();
    }
    if (Status bad = memory_->upload(to, from, n_bytes); !bad.ok()) return bad;
    // The source may be changed or freed as soon as this returns.
    if (Status bad = memory_->wait(); !bad.ok()) return bad;
  }
  return std::shared_ptr<const DevicePrefix>(std::move(made));
}

Result<std::shared_ptr<const DevicePrefix>> BoundEngine::prefix_of(const EncodeInput& in) const {
  if (in.n_prefix_tokens == 0) return no_prefix_;
  if (in.prefix_slot == nullptr) return upload(in);
  return in.prefix_slot->get_or_make([&] { return upload(in); });
}

// A kept binding reads the prefix at a fixed address; others where it lies.
Status BoundEngine::place_prefix(const std::shared_ptr<const DevicePrefix>& prefix, bool is_kept,
                                 Places* places) const {
  const auto& uploaded = static_cast<const UploadedPrefix&>(*prefix);
  places->prefix_key = uploaded.key();
  places->prefix_value = uploaded.value();
  if (!is_kept) return Status::success();
  places->prefix_key = prefix_block_.data();
  places->prefix_value = prefix_block_.data() + (uploaded.value() - uploaded.key());
  if (placed_prefix_.lock() == prefix) return Status::success();
  placed_prefix_.reset();
  Status status = memory_->copy(prefix_block_.data(), uploaded.key(), uploaded.n_bytes());
  if (status.ok()) placed_prefix_ = prefix;
  return status;
}

Status BoundEngine::place_outputs(const RunShape& shape, Places* places) const {
  if (!shape.want_key_value) return Status::success();
  const size_t n_bytes = aligned(static_cast<size_t>(shape.n_tokens()) *
                                 session_->shape().numbers_per_token() * sizeof(float));
  if (output_block_.n_bytes() < 2 * n_bytes) {
    Result<DeviceBuffer> made = DeviceBuffer::allocate(dropped_, 2 * n_bytes);
    if (!made.ok()) return made.status();
    output_block_ = std::move(made).value();
  }
  places->key = output_block_.data();
  places->value = output_block_.data() + n_bytes;
  return Status::success();
}

Status BoundEngine::bind_tensor(OrtIoBinding* io, bool is_input, const char* name, const char* data,
                                size_t n_bytes, const std::vector<int64_t>& dims,
                                ONNXTensorElementDataType type) const {
  Result<OwnedValue> value = session_->tensor(location_.get(), data, n_bytes, dims, type);
  if (!value.ok()) return value.status();
  const OrtApi* api = session_->api();
  return take_status(api,
                     is_input ? api->BindInput(io, name, value.value().get())
                              : api->BindOutput(io, name, value.value().get()),
                     "binding");
}

Status BoundEngine::bind(const RunShape& shape, const Places& places, Binding* binding) const {
  const OrtApi* api = session_->api();
  const ModelShape& model = session_->shape();
  Status status =
      take_status(api, api->CreateIoBinding(session_->raw(), binding->io.out()), "binding");
  if (!status.ok()) return status;
  OrtIoBinding* io = binding->io.get();
  const std::vector<int64_t> row_dims = {shape.n_rows, shape.row_tokens};
  const std::vector<int64_t> pooled_dims = {shape.n_rows, shape.n_pooled};
  const auto offsets = input_offsets(shape);
  for (size_t i = 0; i < kIntegerInputs; ++i) {
    const bool is_row = i + 1 < kIntegerInputs;
    const size_t n = static_cast<size_t>(is_row ? shape.n_tokens() : shape.n_results());
    status = bind_tensor(io, true, kModelInputNames[i], places.block->inputs.data() + offsets[i],
                         n * sizeof(int64_t), is_row ? row_dims : pooled_dims, kInt64);
    if (!status.ok()) return status;
  }
  const std::vector<int64_t> prefix_dims = {model.layers, model.kv_heads, shape.n_prefix,
                                            model.head_dim};
  const std::vector<int64_t> kv_dims = {shape.n_rows, model.layers, model.kv_heads,
                                        shape.row_tokens, model.head_dim};
  const size_t kv_bytes =
      static_cast<size_t>(shape.n_tokens()) * model.numbers_per_token() * sizeof(float);
  const size_t result_bytes = static_cast<size_t>(shape.n_results()) * sizeof(float);
  const char* results = places.block->results.data();
  const struct {
    bool is_wanted, is_input;
    const char* name;
    const char* data;
    size_t n_bytes;
    const std::vector<int64_t>& dims;
    ONNXTensorElementDataType type;
  } tensors[] = {
      {true, true, kModelInputNames[5], places.prefix_key, prefix_bytes(shape.n_prefix),
       prefix_dims, session_->prefix_type()},
      {true, true, kModelInputNames[6], places.prefix_value, prefix_bytes(shape.n_prefix),
       prefix_dims, session_->prefix_type()},
      {shape.want_key_value, false, kModelOutputNames[0], places.key, kv_bytes, kv_dims, kFloat},
      {shape.want_key_value, false, kModelOutputNames[1], places.value, kv_bytes, kv_dims, kFloat},
      {shape.want_reward, false, kModelOutputNames[2], results, result_bytes, pooled_dims, kFloat},
      {shape.want_reward, false, kModelOutputNames[3], results + result_bytes, result_bytes,
       pooled_dims, kFloat},
  };
  for (const auto& t : tensors) {
    if (!t.is_wanted) continue;
    status = bind_tensor(io, t.is_input, t.name, t.data, t.n_bytes, t.dims, t.type);
    if (!status.ok()) return status;
  }
  return Status::success();
}

Result<Binding*> BoundEngine::binding_of(const RunShape& shape, bool is_kept,
                                         const Places& places) const {
  const OrtApi* api = session_->api();
  if (!is_kept) {
    last_loose_ = std::make_unique<Binding>(api, false);
    if (Status bad = bind(shape, places, last_loose_.get()); !bad.ok()) return bad;
    return last_loose_.get();
  }
  const auto found = bindings_.find(shape);
  if (found != bindings_.end()) return &found->second;
  if (bindings_.size() >= kMaxBindings) {
    // Those with a graph stay: nothing else would ever replay it.
    for (auto it = bindings_.begin(); it != bindings_.end();) {
      it = it->second.capturers.empty() ? bindings_.erase(it) : std::next(it);
    }
  }
  Binding made(api, true);
  if (Status bad = bind(shape, places, &made); !bad.ok()) return bad;
  return &bindings_.emplace(shape, std::move(made)).first->second;
}

Status BoundEngine::stage(const EncodeInput& in, const RunShape& shape,
                          const DeviceBlock& block) const {
  const auto offsets = input_offsets(shape);
  const std::vector<int64_t>* integers[kIntegerInputs] = {
      &in.input_ids, &in.position_ids, &in.segment_ids, &in.visible, &in.pooled_at};
  for (size_t i = 0; i < kIntegerInputs; ++i) {
    const bool is_row = i + 1 < kIntegerInputs;
    const int64_t from_width = is_row ? in.row_tokens : in.n_pooled;
    const int64_t to_width = is_row ? shape.row_tokens : shape.n_pooled;
    auto* to = reinterpret_cast<int64_t*>(block.staged.data() + offsets[i]);
    const int64_t* from = integers[i]->data();
    for (int64_t row = 0; row < shape.n_rows; ++row, from += from_width, to += to_width) {
      std::copy(from, from + from_width, to);
      std::fill(to + from_width, to + to_width, is_row ? 0 : -1);
    }
  }
  // A result that is not written is not finite, which every caller checks.
  auto* results = reinterpret_cast<float*>(block.results.data());
  std::fill(results, results + 2 * shape.n_results(), std::numeric_limits<float>::quiet_NaN());
  return memory_->upload(block.inputs.data(), block.staged.data(), offsets.back());
}

Status BoundEngine::run(Binding* binding) const {
  const OrtApi* api = session_->api();
  const OrtRunOptions* options = plain_run_.get();  // null where there are no graphs
  if (has_graphs_ && binding->is_kept) {
    const auto thread = std::this_thread::get_id();
    const bool is_captured = binding->capturers.count(thread) != 0;
    if (!is_captured && n_graphs_ < kMaxGraphs) {
      if (binding->run.get() == nullptr) {
        Result<Handle<OrtRunOptions>> made = run_options(std::to_string(n_graphs_ + 1));
        if (!made.ok()) return made.status();
        binding->run = std::move(made).value();
      }
      binding->capturers.insert(thread);
      ++n_graphs_;
    }
    if (binding->capturers.count(thread) != 0) options = binding->run.get();
  }
  return take_status(api, api->RunWithBinding(session_->raw(), options, binding->io.get()),
                     "the model cannot be run");
}

Status BoundEngine::collect(const EncodeInput& in, const RunShape& shape, const Places& places,
                            EncodeOutput* output) const {
  output->owned.clear();
  if (shape.want_key_value) {
    const size_t n = static_cast<size_t>(shape.n_tokens()) * session_->shape().numbers_per_token();
    auto floats = std::make_shared<std::vector<float>>(2 * n);
    Status status = memory_->download(floats->data(), places.key, n * sizeof(float));
    if (status.ok()) {
      status = memory_->download(floats->data() + n, places.value, n * sizeof(float));
    }
    if (!status.ok()) return status;
    output->key = floats->data();
    output->value = floats->data() + n;
    output->owned.push_back(std::move(floats));
  }
  // ONNX Runtime has waited for the stream already; scores must not rest on that.
  if (Status bad = memory_->wait(); !bad.ok()) return bad;
  if (!shape.want_reward) return Status::success();
  const size_t n = static_cast<size_t>(in.n_rows * in.n_pooled);
  auto scores = std::make_shared<std::vector<float>>();
  scores->reserve(2 * n);
  const auto* results = reinterpret_cast<const float*>(places.block->results.data());
  for (int64_t row = 0; row < 2 * in.n_rows; ++row) {
    const float* first = results + row * shape.n_pooled;
    scores->insert(scores->end(), first, first + in.n_pooled);
  }
  output->reward = scores->data();
  output->compliance = scores->data() + n;
  output->owned.push_back(std::move(scores));
  return Status::success();
}

Status BoundEngine::encode(const EncodeInput& in, EncodeOutput* output) const {
  const std::lock_guard<std::mutex> lock(device_mutex());
  if (Status bad = memory_->enter(); !bad.ok()) return bad;
  dropped_->free_all();
  const RunShape shape = run_shape(in);
  Result<std::shared_ptr<const DevicePrefix>> prefix = prefix_of(in);
  if (!prefix.ok()) return prefix.status();
  const bool fits = fixed_.fits(shape);
  const bool is_kept = has_graphs_ && fits && !shape.want_key_value &&
                       2 * aligned(prefix_bytes(shape.n_prefix)) <= prefix_block_.n_bytes();
  if (!fits && !large_.fits(shape)) {
    Status status = large_.make(dropped_, memory_, input_offsets(shape).back(), shape.n_results());
    if (!status.ok()) return status;
  }
  Places places;
  places.block = fits ? &fixed_ : &large_;
  if (Status bad = place_prefix(prefix.value(), is_kept, &places); !bad.ok()) return bad;
  if (Status bad = place_outputs(shape, &places); !bad.ok()) return bad;
  if (Status bad = stage(in, shape, *places.block); !bad.ok()) return bad;
  // Binding an input that a node on the CPU reads copies it there at once: it must have arrived.
  if (!has_graphs_) {
    if (Status bad = memory_->wait(); !bad.ok()) return bad;
  }
  Result<Binding*> binding = binding_of(shape, is_kept, places);
  if (!binding.ok()) return binding.status();
  if (Status bad = run(binding.value()); !bad.ok()) return bad;
  return collect(in, shape, places, output);
}

}  // namespace

std::mutex& device_mutex() {
  static auto* const mutex = new std::mutex;
  return *mutex;
}

Result<std::unique_ptr<Engine>> make_bound_engine(std::unique_ptr<ModelSession> session,
                                                  std::shared_ptr<DeviceMemory> memory,
                                                  bool has_graphs) {
  auto engine = std::make_unique<BoundEngine>(std::move(session), std::move(memory), has_graphs);
  if (Status bad = engine->open(); !bad.ok()) return bad;
  return std::unique_ptr<Engine>(std::move(engine));
}

}  // namespace csrm
