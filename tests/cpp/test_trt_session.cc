// A TensorRT engine as csrm's Engine, without TensorRT or a GPU: the engine is a stand-in that
// computes from what lies at the addresses it is given, and the device's memory is the host's.
// Which library, file and GPU are taken: also here, as far as that can be without them. Not: a real
// engine (tests/integrations/test_tensorrt.py builds one), and nothing is known here of its speed.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "host_memory.h"
#include "kernels/half.h"
#include "prefix.h"
#include "tensorrt_stubs.h"
#include "trt_engine.h"
#include "trt_library.h"
#include "trt_session.h"

namespace {

using csrm::Code;
using csrm::EncodeInput;
using csrm::EncodeOutput;
using csrm::Engine;
using csrm::ModelShape;
using csrm::Result;
using csrm::Status;
using nvinfer1::DataType;
using nvinfer1::Dims;

ModelShape small_shape() {
  ModelShape shape;
  shape.layers = 2;
  shape.kv_heads = 1;
  shape.head_dim = 3;
  return shape;
}
const ModelShape kShape = small_shape();
constexpr size_t kScratch = 4096;

// What the stand-in was asked, kept outside it because the session owns it.
struct Asked {
  std::vector<std::vector<int64_t>> launches;  // profile, B, T, P, J
  int n_contexts = 0;
  bool fails_to_run = false, fails_to_make = false;
  uint16_t first_prefix_bits = 0;
};

class FakeContext final : public csrm_test::StubContext {
 public:
  explicit FakeContext(Asked* asked, csrm::TrtLogger* logger) : asked_(asked), logger_(logger) {}

  bool setOptimizationProfileAsync(int32_t profile, cudaStream_t) noexcept override {
    profile_ = profile;
    return true;
  }
  bool setInputShape(const char* name, const Dims& dims) noexcept override {
    shapes_[name] = dims;
    return true;
  }
  bool setTensorAddress(const char* name, void* data) noexcept override {
    addresses_[name] = data;
    return data != nullptr;
  }
  size_t updateDeviceMemorySizeForShapes() noexcept override { return kScratch; }
  void setDeviceMemoryV2(void* memory, int64_t n_bytes) noexcept override {
    has_memory_ = memory != nullptr && n_bytes >= static_cast<int64_t>(kScratch);
  }

  // reward = the pooled token's id + its position + its segment; compliance = half of it; the key
  // of a token is its id, the value its `visible`.
  bool enqueueV3(cudaStream_t) noexcept override {
    if (asked_->fails_to_run || !has_memory_ || addresses_.size() != 11) {
      logger_->log(nvinfer1::ILogger::Severity::kERROR, "the stand-in was told to fail");
      return false;
    }
    const int64_t rows = shapes_["input_ids"].d[0], tokens = shapes_["input_ids"].d[1];
    const int64_t judged = shapes_["pooled_at"].d[1], prefix = shapes_["prefix_key"].d[2];
    asked_->launches.push_back({profile_, rows, tokens, prefix, judged});
    if (prefix > 0) std::memcpy(&asked_->first_prefix_bits, addresses_["prefix_value"], 2);
    const int64_t *ids = ints("input_ids"), *positions = ints("position_ids"),
                  *segments = ints("segment_ids"), *visible = ints("visible");
    const int64_t* pooled = ints("pooled_at");
    for (int64_t i = 0; i < rows * judged; ++i) {
      const int64_t at = i / judged * tokens + std::max<int64_t>(pooled[i], 0);
      const auto sum = static_cast<float>(ids[at] + positions[at] + segments[at]);
      floats("reward")[i] = pooled[i] < 0 ? NAN : sum;
      floats("compliance")[i] = floats("reward")[i] / 2;
    }
    const int64_t heads = kShape.layers * kShape.kv_heads, dim = kShape.head_dim;
    for (int64_t i = 0; i < rows * heads * tokens * dim; ++i) {
      const int64_t at = i / (heads * tokens * dim) * tokens + i / dim % tokens;
      floats("key")[i] = static_cast<float>(ids[at]);
      floats("value")[i] = static_cast<float>(visible[at]);
    }
    return true;
  }

 private:
  const int64_t* ints(const char* name) { return static_cast<const int64_t*>(addresses_[name]); }
  float* floats(const char* name) { return static_cast<float*>(addresses_[name]); }

  Asked* asked_;
  csrm::TrtLogger* logger_;
  int32_t profile_ = -1;
  bool has_memory_ = false;
  std::map<std::string, Dims> shapes_;
  std::map<std::string, void*> addresses_;
};

class FakeEngine final : public csrm_test::StubEngine {
 public:
  FakeEngine(Asked* asked, csrm::TrtLogger* logger, DataType type, int32_t n_profiles)
      : asked_(asked), logger_(logger), n_profiles_(n_profiles) {
    const int64_t layers = kShape.layers, heads = kShape.kv_heads, dim = kShape.head_dim;
    for (const char* name : {"input_ids", "position_ids", "segment_ids", "visible", "pooled_at"}) {
      tensors[name] = {DataType::kINT64, {-1, -1}};
    }
    tensors["prefix_key"] = tensors["prefix_value"] = {type, {layers, heads, -1, dim}};
    tensors["key"] = tensors["value"] = {DataType::kFLOAT, {-1, layers, heads, -1, dim}};
    tensors["reward"] = tensors["compliance"] = {DataType::kFLOAT, {-1, -1}};
  }
  nvinfer1::IExecutionContext* createExecutionContext(
      nvinfer1::ExecutionContextAllocationStrategy strategy) noexcept override {
    CHECK(strategy == nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED);
    if (asked_->fails_to_make) return nullptr;
    ++asked_->n_contexts;
    return new FakeContext(asked_, logger_);
  }
  int32_t getNbOptimizationProfiles() const noexcept override { return n_profiles_; }
  int32_t getNbIOTensors() const noexcept override { return static_cast<int32_t>(tensors.size()); }
  Dims getTensorShape(const char* name) const noexcept override {
    Dims dims{};
    for (int64_t size : tensors.at(name).second) dims.d[dims.nbDims++] = size;
    return dims;
  }
  DataType getTensorDataType(const char* name) const noexcept override {
    return tensors.at(name).first;
  }

  std::map<std::string, std::pair<DataType, std::vector<int64_t>>> tensors;

 private:
  Asked* asked_;
  csrm::TrtLogger* logger_;
  int32_t n_profiles_;
};

struct Made {
  Asked asked;
  std::shared_ptr<csrm_test::HostMemory> memory = std::make_shared<csrm_test::HostMemory>();
  Result<std::unique_ptr<Engine>> engine{Code::kInternal, ""};
};

// One row at a time over any prefix; up to 2 rows of up to 40 tokens over up to 8.
const std::vector<csrm::EngineProfile> kProfiles = {
    {{1, 1, 1}, {1, 16, 64}, {0, 4, 100}, {1, 1, 4}},
    {{1, 2, 2}, {1, 16, 40}, {0, 4, 8}, {1, 1, 4}},
};

std::unique_ptr<Made> make(
    DataType type = DataType::kHALF,
    const std::function<void(FakeEngine*)>& change = [](FakeEngine*) {}) {
  auto made = std::make_unique<Made>();
  csrm::TrtSessionParts parts;
  parts.logger = std::make_shared<csrm::TrtLogger>();
  auto fake = std::make_unique<FakeEngine>(&made->asked, parts.logger.get(), type, 2);
  change(fake.get());
  parts.engine = std::move(fake);
  parts.profiles = kProfiles;
  parts.shape = kShape;
  parts.version = "tensorrt 10.0.0.0";
  parts.memory = made->memory;
  made->engine = csrm::make_trt_session(std::move(parts));
  return made;
}

// `n_rows` rows of `n_tokens`; the id of a token is 100 * row + token.
EncodeInput rows_of(int64_t n_rows, int64_t n_tokens, std::vector<int64_t> pooled_of_each_row) {
  EncodeInput in;
  in.n_rows = n_rows;
  in.row_tokens = n_tokens;
  in.n_pooled = static_cast<int64_t>(pooled_of_each_row.size());
  for (int64_t row = 0; row < n_rows; ++row) {
    for (int64_t t = 0; t < n_tokens; ++t) {
      in.input_ids.push_back(100 * row + t);
      in.position_ids.push_back(t);
      in.segment_ids.push_back(1);
      in.visible.push_back(n_tokens);
    }
    in.pooled_at.insert(in.pooled_at.end(), pooled_of_each_row.begin(), pooled_of_each_row.end());
  }
  in.want_reward = true;
  return in;
}

float expected_reward(int64_t row, int64_t at) {
  return static_cast<float>(100 * row + 2 * at + 1);
}

void test_encode_padded_row_gives_the_rows_results() {
  auto made = make();
  CHECK(made->engine.ok());
  const Engine& engine = *made->engine.value();
  CHECK(engine.device() == csrm::Device::kTensorRt);
  CHECK(engine.version() == "tensorrt 10.0.0.0");
  EncodeOutput out;
  CHECK(engine.encode(rows_of(1, 21, {0, 20, -1}), &out).ok());
  CHECK(out.reward[0] == expected_reward(0, 0) && out.reward[1] == expected_reward(0, 20));
  CHECK(out.compliance[1] == expected_reward(0, 20) / 2);
  CHECK(std::isnan(out.reward[2]) && std::isnan(out.compliance[2]));
  CHECK(out.key == nullptr && out.value == nullptr);
  CHECK((made->asked.launches == std::vector<std::vector<int64_t>>{{0, 1, 32, 0, 4}}));
  // 64 tokens are the most of any profile, 61 padded are 64, and 65 are too many.
  CHECK(engine.encode(rows_of(1, 61, {0}), &out).ok());
  CHECK(made->asked.launches.back()[2] == 64);
  const Status status = engine.encode(rows_of(1, 65, {0}), &out);
  CHECK(status.code == Code::kUnsupported);
  CHECK(status.message.find("65 tokens") != std::string::npos);
}

void test_encode_more_rows_than_a_profile_run_in_turns() {
  auto made = make();
  const Engine& engine = *made->engine.value();
  EncodeInput in = rows_of(5, 20, {3, 19});
  in.want_key_value = true;
  EncodeOutput out;
  CHECK(engine.encode(in, &out).ok());
  CHECK(made->asked.launches.size() == 3);
  CHECK((made->asked.launches[0] == std::vector<int64_t>{1, 2, 20, 0, 2}));
  CHECK((made->asked.launches[2] == std::vector<int64_t>{0, 1, 20, 0, 2}));
  CHECK(made->asked.n_contexts == 2);
  const auto* key = static_cast<const float*>(out.key);
  const auto* value = static_cast<const float*>(out.value);
  for (int64_t row = 0; row < 5; ++row) {
    CHECK(out.reward[2 * row] == expected_reward(row, 3));
    CHECK(out.compliance[2 * row + 1] == expected_reward(row, 19) / 2);
    const int64_t per_row = 2 * 20 * 3;
    for (int64_t i = 0; i < per_row; ++i) {
      CHECK(key[row * per_row + i] == static_cast<float>(100 * row + i / 3 % 20));
      CHECK(value[row * per_row + i] == 20.0f);
    }
  }
  // Over a prefix that only the first profile takes, each row alone.
  in.want_key_value = false;
  std::vector<float> prefix(2 * 50 * 3, 1.5f);
  in.n_prefix_tokens = 50;
  in.prefix_key = in.prefix_value = prefix.data();
  CHECK(engine.encode(in, &out).ok());
  CHECK(made->asked.launches.size() == 8);
  CHECK(made->asked.launches.back()[0] == 0 && made->asked.launches.back()[3] == 50);
}

csrm::Numbers floats(size_t n, float x) {
  csrm::Numbers bytes(n * sizeof(x));
  for (size_t i = 0; i < n; ++i) std::memcpy(bytes.data() + i * sizeof(x), &x, sizeof(x));
  return bytes;
}

void test_prefix_is_copied_once_in_the_engines_type() {
  const struct {
    DataType type;
    uint16_t bits;
  } types[] = {{DataType::kHALF, csrm::kernels::to_half(1.7f)}, {DataType::kBF16, 0x3fda}};
  for (const auto& each : types) {
    auto made = make(each.type);
    const Engine& engine = *made->engine.value();
    csrm::Prefix prefix;
    prefix.n_tokens = 4;
    prefix.key = floats(2 * 4 * 3, 0.5f);
    prefix.value = floats(2 * 4 * 3, 1.7f);
    EncodeInput in = rows_of(1, 16, {0});
    csrm::set_prefix(prefix, &in);
    EncodeOutput out;
    CHECK(engine.encode(in, &out).ok());
    const int n_first = made->memory->n_uploads;
    CHECK(engine.encode(in, &out).ok());
    CHECK(made->memory->n_uploads == n_first + 1);  // the row alone
    CHECK(made->asked.first_prefix_bits == each.bits);
    in.prefix_slot = nullptr;
    CHECK(engine.encode(in, &out).ok());
    CHECK(made->memory->n_uploads == n_first + 4);
  }
}

void test_engine_of_another_signature_is_bad_artifact() {
  const std::function<void(FakeEngine*)> changes[] = {
      [](FakeEngine* fake) { fake->tensors["pooled_at"].first = DataType::kINT32; },
      [](FakeEngine* fake) { fake->tensors["key"].first = DataType::kHALF; },
      [](FakeEngine* fake) { fake->tensors["reward"].second = {-1}; },
      [](FakeEngine* fake) { fake->tensors["prefix_value"].second = {2, 1, -1, 4}; },
      [](FakeEngine* fake) { fake->tensors["prefix_value"].first = DataType::kINT8; },
      [](FakeEngine* fake) { fake->tensors["extra"] = {DataType::kFLOAT, {-1}}; },
  };
  for (const auto& change : changes) {
    auto made = make(DataType::kFLOAT, change);
    CHECK(made->engine.status().code == Code::kBadArtifact);
    CHECK(made->engine.status().message.find("export --tensorrt") != std::string::npos);
  }
}

void test_failure_of_tensorrt_is_told_and_the_next_call_works() {
  auto made = make();
  const Engine& engine = *made->engine.value();
  EncodeOutput out;
  made->asked.fails_to_make = true;
  CHECK(engine.encode(rows_of(1, 16, {0}), &out).code == Code::kEngineFailed);
  made->asked.fails_to_make = false;
  made->asked.fails_to_run = true;
  const Status status = engine.encode(rows_of(1, 16, {0}), &out);
  CHECK(status.code == Code::kEngineFailed);
  CHECK(status.message.find("told to fail") != std::string::npos);
  CHECK(std::isnan(out.reward[0]));
  made->asked.fails_to_run = false;
  made->memory->n_bytes_left = 0;
  CHECK(engine.encode(rows_of(2, 40, {0}), &out).code == Code::kEngineFailed);
  made->memory->n_bytes_left = size_t{1} << 30;
  CHECK(engine.encode(rows_of(2, 40, {0}), &out).ok());
}

void test_session_frees_all_memory() {
  auto made = make();
  EncodeInput in = rows_of(2, 8, {0});
  std::vector<float> prefix(2 * 4 * 3, 1.0f);
  in.n_prefix_tokens = 4;
  in.prefix_key = in.prefix_value = prefix.data();
  EncodeOutput out;
  CHECK(made->engine.value()->encode(in, &out).ok());
  CHECK(!made->memory->held.empty());
  made->engine = Result<std::unique_ptr<Engine>>(Code::kInternal, "");
  CHECK(made->memory->held.empty());
}

void test_library_that_is_not_there_is_engine_unavailable() {
  ::setenv("CSRM_TENSORRT_LIBRARY", "/nonexistent/libnvinfer.so.10", 1);
  Result<csrm::TrtLibrary> library = csrm::load_trt_library();
  CHECK(library.status().code == Code::kEngineUnavailable);
  CHECK(library.status().message.find("install") != std::string::npos);
  ::setenv("CSRM_TENSORRT_LIBRARY", "libm.so.6", 1);
  library = csrm::load_trt_library();
  CHECK(library.status().code == Code::kEngineUnavailable);
  CHECK(library.status().message.find("no library of TensorRT") != std::string::npos);
  ::unsetenv("CSRM_TENSORRT_LIBRARY");
}

// The headers here are TensorRT's.
void test_library_of_another_interface_is_unsupported() {
  CHECK(std::string(csrm::trt_package()) == "tensorrt");
  const struct {
    const char* version;
    bool has_interface;
  } cases[] = {{"10.14.1.48", true}, {"10.20.0.1", true}, {"10.1.0.0", true},
               {"10.0.1.6", false},  {"11.0.0.0", false}, {"1.7.1.116", false}};
  for (const auto& each : cases) {
    const Status status = csrm::check_trt_interface(each.version);
    CHECK(status.ok() == each.has_interface);
    CHECK(status.ok() || status.code == Code::kUnsupported);
  }
}

void test_version_must_be_the_engines() {
  csrm::TrtLibrary library;
  library.package = "tensorrt";
  library.version = "10.14.1.48";
  const struct {
    const char* built;
    bool is_compatible, runs;
  } cases[] = {{"10.14.1.48", false, true}, {"10.14.1.47", false, false},
               {"10.8.0.1", true, true},    {"10.15.0.0", true, false},
               {"9.3.0.0", true, false},    {"10.14.1.48", true, true}};
  for (const auto& each : cases) {
    const Status status = csrm::check_trt_version(each.built, each.is_compatible, library);
    CHECK(status.ok() == each.runs);
    CHECK(status.ok() || status.code == Code::kUnsupported);
  }
  CHECK(csrm::check_trt_package("tensorrt").ok());
  const Status other = csrm::check_trt_package("tensorrt_rtx");
  CHECK(other.code == Code::kUnsupported);
  CHECK(other.message.find("TENSORRT_INCLUDE_DIR") != std::string::npos);
}

void test_support_that_is_missing_is_listed() {
  ::setenv("CSRM_TENSORRT_LIBRARY", "/nonexistent/libtensorrt_rtx.so.1", 1);
  const Status status = csrm::find_trt_support().status();
  CHECK(status.code == Code::kEngineUnavailable);
  CHECK(status.message.find("device \"tensorrt\"") != std::string::npos);
  CHECK(status.message.find("libtensorrt_rtx.so.1") != std::string::npos);
  csrm::Artifact artifact;
  CHECK(csrm::load_trt_engine(artifact).status().message == status.message);
  ::unsetenv("CSRM_TENSORRT_LIBRARY");
}

}  // namespace

int main() {
  test_encode_padded_row_gives_the_rows_results();
  test_encode_more_rows_than_a_profile_run_in_turns();
  test_prefix_is_copied_once_in_the_engines_type();
  test_engine_of_another_signature_is_bad_artifact();
  test_failure_of_tensorrt_is_told_and_the_next_call_works();
  test_session_frees_all_memory();
  test_library_that_is_not_there_is_engine_unavailable();
  test_library_of_another_interface_is_unsupported();
  test_version_must_be_the_engines();
  test_support_that_is_missing_is_listed();
  return csrm_test::summary();
}
