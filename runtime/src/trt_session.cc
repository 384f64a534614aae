// The signature check, the choice of a profile, and encode(); see trt_session.h.
#include "trt_session.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <mutex>
#include <utility>

#include "bound_engine.h"
#include "kernels/half.h"
#include "run_shape.h"

namespace csrm {
namespace {

using nvinfer1::DataType;

constexpr const char* kIntegerNames[kIntegerInputs] = {"input_ids", "position_ids", "segment_ids",
                                                       "visible", "pooled_at"};
constexpr const char* kPrefixNames[2] = {"prefix_key", "prefix_value"};
constexpr const char* kOutputNames[4] = {"key", "value", "reward", "compliance"};

Status failed(const std::string& message) { return {Code::kEngineFailed, message}; }

nvinfer1::Dims dims_of(std::initializer_list<int64_t> sizes) {
  nvinfer1::Dims dims{};
  for (int64_t size : sizes) dims.d[dims.nbDims++] = size;
  return dims;
}

// Keys, then values, of one Prefix in the device's memory.
class TrtPrefix final : public DevicePrefix {
 public:
  TrtPrefix(DeviceBuffer buffer, size_t value_offset)
      : buffer_(std::move(buffer)), value_offset_(value_offset) {}
  char* part(size_t i) const { return buffer_.data() + i * value_offset_; }

 private:
  DeviceBuffer buffer_;
  size_t value_offset_;
};

// Some rows of a call, and the shape they are run in.
struct Launch {
  int64_t first_row = 0;
  RunShape shape;
  size_t profile = 0;
};

class TrtSession final : public Engine {
 public:
  explicit TrtSession(TrtSessionParts parts)
      : parts_(std::move(parts)),
        dropped_(std::make_shared<DroppedBuffers>(parts_.memory)),
        contexts_(parts_.profiles.size()) {}
  ~TrtSession() override;

  Status open();
  Status encode(const EncodeInput& in, EncodeOutput* output) const override;
  const std::string& version() const override { return parts_.version; }
  // Prefixes are floats on the host; narrower ones are rounded on their way to the device.
  KvType kv_type() const override { return KvType::kFloat; }
  Device device() const override { return Device::kTensorRt; }

 private:
  size_t kv_floats(int64_t n_tokens) const {
    return static_cast<size_t>(n_tokens) * parts_.shape.numbers_per_token();
  }
  Status check_tensor(const char* name, DataType type, std::initializer_list<int64_t> sizes) const;
  Result<Launch> plan(const EncodeInput& in, int64_t first_row) const;
  Result<nvinfer1::IExecutionContext*> context_of(size_t profile) const;
  Result<std::shared_ptr<const DevicePrefix>> prefix_of(const EncodeInput& in) const;
  Result<std::shared_ptr<const DevicePrefix>> upload(const EncodeInput& in) const;
  Status reserve(DeviceBuffer* buffer, size_t n_bytes) const;
  Status stage(const EncodeInput& in, const Launch& launch) const;
  Status bind(nvinfer1::IExecutionContext* context, const Launch& launch,
              const TrtPrefix& prefix) const;
  Status run(const EncodeInput& in, const Launch& launch, const TrtPrefix& prefix) const;
  Status collect(const EncodeInput& in, const Launch& launch, EncodeOutput* output) const;

  TrtSessionParts parts_;
  const std::shared_ptr<DroppedBuffers> dropped_;
  DataType prefix_type_ = DataType::kFLOAT;
  // All of this under device_mutex(). Buffers grow to the largest call.
  mutable std::vector<std::unique_ptr<nvinfer1::IExecutionContext>> contexts_;  // by profile
  mutable DeviceBuffer inputs_, outputs_, scratch_;
  mutable std::vector<char> staged_;
  mutable std::shared_ptr<const DevicePrefix> no_prefix_;
};

TrtSession::~TrtSession() {
  const std::lock_guard<std::mutex> lock(device_mutex());
  if (!parts_.memory->enter().ok()) return;
  contexts_.clear();
  parts_.engine.reset();
  parts_.runtime.reset();
  for (DeviceBuffer* buffer : {&inputs_, &outputs_, &scratch_}) *buffer = DeviceBuffer();
  no_prefix_.reset();
  dropped_->free_all();
}

Status TrtSession::check_tensor(const char* name, DataType type,
                                std::initializer_list<int64_t> sizes) const {
  const nvinfer1::ICudaEngine& engine = *parts_.engine;
  const nvinfer1::Dims dims = engine.getTensorShape(name);
  bool agrees =
      dims.nbDims == static_cast<int32_t>(sizes.size()) && engine.getTensorDataType(name) == type;
  size_t i = 0;
  for (int64_t size : sizes) agrees = agrees && (dims.d[i++] == size);
  if (agrees) return Status::success();
  return {Code::kBadArtifact, std::string("the TensorRT engine's ") + name +
                                  " has another type or shape than csrm's signature; build it "
                                  "again with csrm export --tensorrt"};
}

Status TrtSession::open() {
  constexpr int64_t kAny = -1;
  const DataType type = parts_.engine->getTensorDataType(kPrefixNames[0]);
  if (type == DataType::kHALF || type == DataType::kBF16) prefix_type_ = type;
  const ModelShape& shape = parts_.shape;
  if (parts_.engine->getNbOptimizationProfiles() != static_cast<int32_t>(parts_.profiles.size()) ||
      parts_.engine->getNbIOTensors() != 11) {
    return {Code::kBadArtifact,
            "the TensorRT engine has other profiles or tensors than the manifest says; build it "
            "again with csrm export --tensorrt"};
  }
  for (const char* name : kIntegerNames) {
    if (Status bad = check_tensor(name, DataType::kINT64, {kAny, kAny}); !bad.ok()) return bad;
  }
  for (const char* name : kPrefixNames) {
    Status bad =
        check_tensor(name, prefix_type_, {shape.layers, shape.kv_heads, kAny, shape.head_dim});
    if (!bad.ok()) return bad;
  }
  for (size_t i = 0; i < std::size(kOutputNames); ++i) {
    Status bad = i < 2 ? check_tensor(kOutputNames[i], DataType::kFLOAT,
                                      {kAny, shape.layers, shape.kv_heads, kAny, shape.head_dim})
                       : check_tensor(kOutputNames[i], DataType::kFLOAT, {kAny, kAny});
    if (!bad.ok()) return bad;
  }
  return Status::success();
}

bool fits(const EngineProfile& profile, const RunShape& shape) {
  return profile.tokens.holds(shape.row_tokens) && profile.prefix.holds(shape.n_prefix) &&
         profile.judged.holds(shape.n_pooled);
}

// Rows from `first_row` on: as many as the first fitting profile takes.
Result<Launch> TrtSession::plan(const EncodeInput& in, int64_t first_row) const {
  const RunShape padded = run_shape(in);
  RunShape exact = padded;
  exact.row_tokens = in.row_tokens;
  exact.n_pooled = in.n_pooled;
  const int64_t n_left = in.n_rows - first_row;
  for (const RunShape& shape : {padded, exact}) {
    for (size_t i = 0; i < parts_.profiles.size(); ++i) {
      const EngineProfile& profile = parts_.profiles[i];
      if (!fits(profile, shape) || n_left < profile.batch.least) continue;
      // Whoever needs fewer launches, should one profile be for single rows.
      const bool has_larger =
          n_left > profile.batch.most &&
          std::any_of(parts_.profiles.begin(), parts_.profiles.end(), [&](const auto& other) {
            return fits(other, shape) && n_left >= other.batch.least &&
                   other.batch.most > profile.batch.most;
          });
      if (has_larger) continue;
      Launch launch{first_row, shape, i};
      launch.shape.n_rows = std::min(n_left, profile.batch.most);
      return launch;
    }
  }
  return {Code::kUnsupported, "no profile of the TensorRT engine takes " + std::to_string(n_left) +
                                  " rows of " + std::to_string(in.row_tokens) + " tokens over " +
                                  std::to_string(in.n_prefix_tokens) + " with " +
                                  std::to_string(in.n_pooled) +
                                  " judged; build it with a --tensorrt-profile that does"};
}

Result<nvinfer1::IExecutionContext*> TrtSession::context_of(size_t profile) const {
  std::unique_ptr<nvinfer1::IExecutionContext>& context = contexts_[profile];
  if (context == nullptr) {
    // The memory of a call's own shapes, not of the profile's largest.
    context.reset(parts_.engine->createExecutionContext(
        nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED));
    if (context == nullptr) {
      return failed("TensorRT has no execution context: " + parts_.logger->take_error());
    }
    if (!context->setOptimizationProfileAsync(static_cast<int32_t>(profile), parts_.stream)) {
      context.reset();
      return failed("TensorRT cannot take a profile: " + parts_.logger->take_error());
    }
  }
  return context.get();
}

// The bits of the nearest bf16, ties to even. The values are finite: an engine's output was
// checked.
uint16_t bf16_bits(float x) {
  uint32_t bits = 0;
  std::memcpy(&bits, &x, sizeof(bits));
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

Result<std::shared_ptr<const DevicePrefix>> TrtSession::upload(const EncodeInput& in) const {
  const size_t n = kv_floats(in.n_prefix_tokens);
  const size_t value_offset = aligned(n * (prefix_type_ == DataType::kFLOAT ? 4 : 2));
  Result<DeviceBuffer> buffer = DeviceBuffer::allocate(dropped_, 2 * value_offset);
  if (!buffer.ok()) return buffer.status();
  auto made = std::make_shared<TrtPrefix>(std::move(buffer).value(), value_offset);
  std::vector<uint16_t> narrow[2];  // both live until the copies are done
  const float* const floats[2] = {static_cast<const float*>(in.prefix_key),
                                  static_cast<const float*>(in.prefix_value)};
  for (size_t i = 0; i < 2 && n > 0; ++i) {
    const void* from = floats[i];
    if (prefix_type_ != DataType::kFLOAT) {
      narrow[i].resize(n);
      if (prefix_type_ == DataType::kHALF) {
        std::transform(floats[i], floats[i] + n, narrow[i].begin(), kernels::to_half);
      } else {
        std::transform(floats[i], floats[i] + n, narrow[i].begin(), bf16_bits);
      }
      from = narrow[i].data();
    }
    Status bad =
        parts_.memory->upload(made->part(i), from, n * (prefix_type_ == DataType::kFLOAT ? 4 : 2));
    if (!bad.ok()) return bad;
  }
  if (Status bad = parts_.memory->wait(); !bad.ok()) return bad;
  return std::shared_ptr<const DevicePrefix>(std::move(made));
}

Result<std::shared_ptr<const DevicePrefix>> TrtSession::prefix_of(const EncodeInput& in) const {
  if (in.n_prefix_tokens > 0 && in.prefix_slot != nullptr) {
    return in.prefix_slot->get_or_make([&] { return upload(in); });
  }
  if (in.n_prefix_tokens > 0) return upload(in);
  if (no_prefix_ == nullptr) {
    Result<std::shared_ptr<const DevicePrefix>> made = upload({});
    if (!made.ok()) return made;
    no_prefix_ = made.value();
  }
  return no_prefix_;
}

Status TrtSession::reserve(DeviceBuffer* buffer, size_t n_bytes) const {
  if (buffer->n_bytes() >= n_bytes && buffer->data() != nullptr) return Status::success();
  Result<DeviceBuffer> made = DeviceBuffer::allocate(dropped_, n_bytes);
  if (!made.ok()) return made.status();
  *buffer = std::move(made).value();
  return Status::success();
}

// Copies the launch's rows, padded to its shape, to the device.
Status TrtSession::stage(const EncodeInput& in, const Launch& launch) const {
  const RunShape& shape = launch.shape;
  const auto offsets = input_offsets(shape);
  if (Status bad = reserve(&inputs_, offsets.back()); !bad.ok()) return bad;
  staged_.resize(offsets.back());
  const std::vector<int64_t>* integers[kIntegerInputs] = {
      &in.input_ids, &in.position_ids, &in.segment_ids, &in.visible, &in.pooled_at};
  for (size_t i = 0; i < kIntegerInputs; ++i) {
    const bool is_row = i + 1 < kIntegerInputs;
    const int64_t from_width = is_row ? in.row_tokens : in.n_pooled;
    const int64_t to_width = is_row ? shape.row_tokens : shape.n_pooled;
    auto* to = reinterpret_cast<int64_t*>(staged_.data() + offsets[i]);
    const int64_t* from = integers[i]->data() + launch.first_row * from_width;
    for (int64_t row = 0; row < shape.n_rows; ++row, from += from_width, to += to_width) {
      std::copy(from, from + from_width, to);
      std::fill(to + from_width, to + to_width, is_row ? 0 : -1);
    }
  }
  return parts_.memory->upload(inputs_.data(), staged_.data(), offsets.back());
}

// Where each output of a launch begins in outputs_, and the end.
std::array<size_t, 5> output_offsets(const RunShape& shape, size_t kv_floats) {
  const size_t kv = aligned(kv_floats * sizeof(float));
  const size_t results = aligned(static_cast<size_t>(shape.n_results()) * sizeof(float));
  return {0, kv, 2 * kv, 2 * kv + results, 2 * kv + 2 * results};
}

Status TrtSession::bind(nvinfer1::IExecutionContext* context, const Launch& launch,
                        const TrtPrefix& prefix) const {
  const RunShape& shape = launch.shape;
  const ModelShape& model = parts_.shape;
  const auto in_offsets = input_offsets(shape);
  const auto out_offsets = output_offsets(shape, kv_floats(shape.n_tokens()));
  bool good = true;
  for (size_t i = 0; i < kIntegerInputs; ++i) {
    const int64_t width = i + 1 < kIntegerInputs ? shape.row_tokens : shape.n_pooled;
    good = good && context->setInputShape(kIntegerNames[i], dims_of({shape.n_rows, width})) &&
           context->setTensorAddress(kIntegerNames[i], inputs_.data() + in_offsets[i]);
  }
  for (size_t i = 0; i < std::size(kPrefixNames); ++i) {
    const nvinfer1::Dims dims =
        dims_of({model.layers, model.kv_heads, shape.n_prefix, model.head_dim});
    good = good && context->setInputShape(kPrefixNames[i], dims) &&
           context->setTensorAddress(kPrefixNames[i], prefix.part(i));
  }
  for (size_t i = 0; i < std::size(kOutputNames); ++i) {
    good = good && context->setTensorAddress(kOutputNames[i], outputs_.data() + out_offsets[i]);
  }
  if (good) return Status::success();
  return failed("TensorRT refuses a shape or an address: " + parts_.logger->take_error());
}

Status TrtSession::run(const EncodeInput& in, const Launch& launch, const TrtPrefix& prefix) const {
  Result<nvinfer1::IExecutionContext*> context = context_of(launch.profile);
  if (!context.ok()) return context.status();
  // TensorRT writes every output, wanted or not.
  const size_t n_floats = kv_floats(launch.shape.n_tokens());
  if (Status bad = reserve(&outputs_, output_offsets(launch.shape, n_floats).back()); !bad.ok()) {
    return bad;
  }
  if (Status bad = stage(in, launch); !bad.ok()) return bad;
  if (Status bad = bind(context.value(), launch, prefix); !bad.ok()) return bad;
  const size_t n_bytes = context.value()->updateDeviceMemorySizeForShapes();
  if (Status bad = reserve(&scratch_, n_bytes); !bad.ok()) return bad;
  context.value()->setDeviceMemoryV2(scratch_.data(), static_cast<int64_t>(scratch_.n_bytes()));
  if (context.value()->enqueueV3(parts_.stream)) return Status::success();
  return failed("the TensorRT engine cannot be run: " + parts_.logger->take_error());
}

// The launch's rows of what is wanted, into `output`, which has room for all rows.
Status TrtSession::collect(const EncodeInput& in, const Launch& launch,
                           EncodeOutput* output) const {
  const RunShape& shape = launch.shape;
  const auto offsets = output_offsets(shape, kv_floats(shape.n_tokens()));
  DeviceMemory* memory = parts_.memory.get();
  Status status;
  if (in.want_key_value) {  // then no row is padded
    const size_t n = kv_floats(shape.n_tokens());
    const size_t before = kv_floats(launch.first_row * in.row_tokens);
    const float* const to[2] = {static_cast<const float*>(output->key),
                                static_cast<const float*>(output->value)};
    for (size_t i = 0; i < 2 && status.ok(); ++i) {
      status = memory->download(const_cast<float*>(to[i]) + before, outputs_.data() + offsets[i],
                                n * sizeof(float));
    }
  }
  const auto n_results = static_cast<size_t>(shape.n_results());
  std::vector<float> results(2 * n_results, std::numeric_limits<float>::quiet_NaN());
  for (size_t i = 0; i < 2 && in.want_reward && status.ok(); ++i) {
    status = memory->download(results.data() + i * n_results, outputs_.data() + offsets[2 + i],
                              n_results * sizeof(float));
  }
  if (const Status waited = memory->wait(); status.ok()) status = waited;
  if (!status.ok() || !in.want_reward) return status;
  const float* const to[2] = {output->reward, output->compliance};
  for (size_t i = 0; i < 2; ++i) {
    for (int64_t row = 0; row < shape.n_rows; ++row) {
      const float* from = results.data() + i * n_results + row * shape.n_pooled;
      std::copy(from, from + in.n_pooled,
                const_cast<float*>(to[i]) + (launch.first_row + row) * in.n_pooled);
    }
  }
  return status;
}

Status TrtSession::encode(const EncodeInput& in, EncodeOutput* output) const {
  const std::lock_guard<std::mutex> lock(device_mutex());
  if (Status bad = parts_.memory->enter(); !bad.ok()) return bad;
  dropped_->free_all();
  output->owned.clear();
  const auto room = [&](size_t n) {
    auto floats = std::make_shared<std::vector<float>>(n, std::numeric_limits<float>::quiet_NaN());
    const float* const first = floats->data();
    output->owned.push_back(std::move(floats));
    return first;
  };
  if (in.want_key_value) {
    const size_t n = kv_floats(in.n_rows * in.row_tokens);
    const float* const keys = room(2 * n);
    output->key = keys;
    output->value = keys + n;
  }
  if (in.want_reward) {
    const auto n = static_cast<size_t>(in.n_rows * in.n_pooled);
    output->reward = room(2 * n);
    output->compliance = output->reward + n;
  }
  Result<std::shared_ptr<const DevicePrefix>> prefix = prefix_of(in);
  if (!prefix.ok()) return prefix.status();
  for (int64_t row = 0; row < in.n_rows;) {
    const Result<Launch> launch = plan(in, row);
    if (!launch.ok()) return launch.status();
    Status status = run(in, launch.value(), static_cast<const TrtPrefix&>(*prefix.value()));
    if (status.ok()) status = collect(in, launch.value(), output);
    if (!status.ok()) return status;
    row += launch.value().shape.n_rows;
  }
  return Status::success();
}

}  // namespace

Result<std::unique_ptr<Engine>> make_trt_session(TrtSessionParts parts) {
  auto session = std::make_unique<TrtSession>(std::move(parts));
  if (Status bad = session->open(); !bad.ok()) return bad;
  return std::unique_ptr<Engine>(std::move(session));
}

}  // namespace csrm
