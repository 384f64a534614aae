// The engine that is bound to a device's memory, over host memory and ONNX Runtime's CPU provider:
// the same graph must give the same bits as the CPU's engine, whatever is padded, kept, copied or
// freed in between. Needs an artifact folder and an engine library on the command line, and for the
// graph of a GPU an artifact with a cuda variant and libcsrm_cuda_emulated.so (make emulate-cuda).
// The artifact may be an encoder's or a decoder's. Not: a GPU (bench/gpu_check.sh), and no graph is
// captured here.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "artifact.h"
#include "bound_engine.h"
#include "check.h"
#include "cuda_support.h"
#include "host_memory.h"
#include "kernels/ort_ops.h"
#include "ort_engine.h"
#include "prefix.h"
#include "run_shape.h"

namespace {

using csrm::EncodeInput;
using csrm::EncodeOutput;
using csrm::Engine;
using csrm::Prefix;
using csrm_test::HostMemory;

void test_run_shape_padding_is_the_least_of_few_sizes() {
  std::set<int64_t> sizes;
  int64_t before = 0;
  for (int64_t n = 1; n <= 2048; ++n) {
    const int64_t padded = csrm::padded_tokens(n);
    CHECK(padded >= n && padded >= before && padded < n + 128);
    CHECK(csrm::padded_tokens(padded) == padded);
    sizes.insert(padded);
    before = padded;
  }
  CHECK(sizes.size() == 8 + 12 + 12);
  CHECK(csrm::padded_pooled(1) == 1 && csrm::padded_pooled(5) == 8 && csrm::padded_pooled(8) == 8);
  EncodeInput input;
  input.n_rows = 3;
  input.row_tokens = 20;
  input.n_pooled = 3;
  csrm::RunShape shape = csrm::run_shape(input);
  CHECK(shape.row_tokens == 32 && shape.n_pooled == 4);
  CHECK(csrm::input_offsets(shape).back() == 4 * 768 + 256);
  input.want_key_value = true;
  CHECK(csrm::run_shape(input).row_tokens == 20);
}

class Nothing final : public csrm::DevicePrefix {};

void test_device_prefix_slot_keeps_one_copy_and_no_failure() {
  using Made = csrm::Result<std::shared_ptr<const csrm::DevicePrefix>>;
  const csrm::DevicePrefixSlot slot;
  std::atomic<int> n_made{0};
  const auto fail = [] { return Made(csrm::Code::kEngineFailed, "full"); };
  const auto make = [&] {
    ++n_made;
    return Made(std::make_shared<Nothing>());
  };
  CHECK(slot.get_or_make(fail).status().code == csrm::Code::kEngineFailed && slot.is_empty());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) CHECK(slot.get_or_make(make).ok());
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(n_made == 1 && !slot.is_empty());
  const csrm::DevicePrefixSlot copied(slot);
  CHECK(copied.is_empty());
  slot.clear();
  CHECK(slot.is_empty());
}

// What the tests with a model share.
struct Fixture {
  csrm::Artifact artifact;
  std::unique_ptr<Engine> cpu;
  std::string library;

  // An engine over `memory`, with the CPU's operators and graph; null if it cannot be made.
  std::unique_ptr<Engine> bound(const std::shared_ptr<HostMemory>& memory,
                                bool has_graphs = true) const {
    const auto set_up = [](const OrtApi* api, OrtSessionOptions* options) {
      return csrm::take_status(api, csrm::kernels::register_ops(*api, options), "operators");
    };
    return bound(memory, artifact.fused_path, set_up, has_graphs);
  }

  std::unique_ptr<Engine> bound(const std::shared_ptr<HostMemory>& memory, const std::string& model,
                                const csrm::SessionSetUp& set_up, bool has_graphs) const {
    csrm::Result<csrm::EngineLibrary> loaded = csrm::load_engine_library(library);
    if (!loaded.ok()) return nullptr;
    auto session = csrm::ModelSession::open(std::move(loaded).value(), model,
                                            artifact.manifest.model, true, {}, set_up);
    if (!session.ok()) return nullptr;
    // With graphs: the CPU's provider captures none, but everything around a capture runs.
    auto engine = csrm::make_bound_engine(std::move(session).value(), memory, has_graphs);
    return engine.ok() ? std::move(engine).value() : nullptr;
  }
};

// Of the model of all tests: whether rows are causal, and from where to where token ids are drawn.
struct Tokens {
  bool is_causal = false;
  int64_t first = 1000, end = 21000;
};
Tokens model_tokens;

// `n_rows` rows of random tokens, the last with padding of its own, judged at `n_pooled` places.
EncodeInput random_input(int64_t n_rows, int64_t n_tokens, int64_t n_pooled, unsigned seed) {
  std::mt19937 random(seed);
  EncodeInput input;
  input.n_rows = n_rows;
  input.row_tokens = n_tokens;
  input.n_pooled = n_pooled;
  for (int64_t row = 0; row < n_rows; ++row) {
    const int64_t n = row + 1 == n_rows ? n_tokens - n_tokens / 3 : n_tokens;
    for (int64_t t = 0; t < n_tokens; ++t) {
      const int64_t n_ids = model_tokens.end - model_tokens.first;
      const auto id = model_tokens.first + static_cast<int64_t>(random()) % n_ids;
      input.input_ids.push_back(t < n ? id : 0);
      input.position_ids.push_back(t < n ? t : 0);
      input.segment_ids.push_back(t < n ? 1 : 0);
      input.visible.push_back(t >= n ? 0 : model_tokens.is_causal ? t + 1 : n);
    }
    for (int64_t j = 0; j < n_pooled; ++j) input.pooled_at.push_back(j == 0 ? row % n : -1);
  }
  input.want_reward = true;
  return input;
}

// `input` over `prefix`: the positions of causal rows run on from its end.
void read_prefix(const Prefix& prefix, EncodeInput* input) {
  set_prefix(prefix, input);
  if (!model_tokens.is_causal) return;
  for (size_t i = 0; i < input->position_ids.size(); ++i) {
    const auto token = static_cast<int64_t>(i) % input->row_tokens;
    if (input->visible[i] > 0) input->position_ids[i] = input->n_prefix_tokens + token;
  }
}

bool same_bits(const void* a, const void* b, int64_t n) {
  return a != nullptr && b != nullptr &&
         std::memcmp(a, b, static_cast<size_t>(n) * sizeof(float)) == 0;
}

// True if both engines give the same bits for `input`.
bool agrees(const Engine& engine, const Engine& cpu, const EncodeInput& input) {
  EncodeOutput got, expected;
  if (!engine.encode(input, &got).ok() || !cpu.encode(input, &expected).ok()) return false;
  const int64_t n = input.n_rows * input.n_pooled;
  for (int64_t i = 0; i < n; ++i) {  // NaN where nothing is judged, of whatever bits
    if (std::isnan(got.reward[i]) != std::isnan(expected.reward[i])) return false;
    if (std::isnan(got.reward[i])) continue;
    if (!same_bits(got.reward + i, expected.reward + i, 1)) return false;
    if (!same_bits(got.compliance + i, expected.compliance + i, 1)) return false;
  }
  return true;
}

// A prefix of `n` tokens, encoded by `engine`.
Prefix prefix_of(const Fixture& f, const Engine& engine, int64_t n, unsigned seed) {
  EncodeInput input = random_input(1, n, 1, seed);
  input.want_key_value = true;
  EncodeOutput output;
  CHECK(engine.encode(input, &output).ok());
  const auto tokens = static_cast<size_t>(n);
  return prefix_from_row(f.artifact.manifest.model, {output.key, output.value, 0, tokens, tokens});
}

void test_bound_engine_gives_the_cpu_engines_bits(const Fixture& f, bool has_graphs) {
  const auto engine = f.bound(std::make_shared<HostMemory>(), has_graphs);
  CHECK(engine != nullptr && engine->device() == csrm::Device::kCuda);
  if (engine == nullptr) return;
  EncodeOutput got, expected;
  EncodeInput blocks = random_input(2, 21, 1, 1);
  blocks.want_key_value = true;
  CHECK(engine->encode(blocks, &got).ok() && f.cpu->encode(blocks, &expected).ok());
  const auto n = static_cast<int64_t>(f.artifact.manifest.model.numbers_per_token()) * 2 * 21;
  CHECK(same_bits(got.key, expected.key, n) && same_bits(got.value, expected.value, n));
  CHECK(same_bits(got.reward, expected.reward, 2));
  const Prefix prefix = prefix_of(f, *f.cpu, 37, 2);
  for (const auto& [rows, tokens, pooled] :
       {std::array<int64_t, 3>{1, 16, 1}, {3, 20, 1}, {1, 33, 3}, {3, 20, 1}, {2, 5, 5}}) {
    EncodeInput input = random_input(rows, tokens, pooled, static_cast<unsigned>(tokens));
    CHECK(agrees(*engine, *f.cpu, input));  // without a prefix
    read_prefix(prefix, &input);
    CHECK(agrees(*engine, *f.cpu, input));
  }
  CHECK(agrees(*engine, *f.cpu, random_input(66, 64, 17, 5)));  // more than the fixed blocks hold
}

void test_bound_engine_copies_a_prefix_once(const Fixture& f) {
  const auto memory = std::make_shared<HostMemory>();
  const auto engine = f.bound(memory);
  CHECK(engine != nullptr);
  if (engine == nullptr) return;
  Prefix first = prefix_of(f, *f.cpu, 12, 3);
  const auto second = std::make_unique<Prefix>(prefix_of(f, *f.cpu, 12, 4));
  EncodeInput a = random_input(1, 16, 1, 6), b = a;
  read_prefix(first, &a);
  read_prefix(*second, &b);
  const auto counted = [&](const EncodeInput& input, int n_uploads, int n_copies) {
    const int uploads = memory->n_uploads, copies = memory->n_copies;
    return agrees(*engine, *f.cpu, input) && memory->n_uploads - uploads == n_uploads &&
           memory->n_copies - copies == n_copies;
  };
  CHECK(counted(a, 3, 1));  // keys, values and the tokens; into the place of the one in use
  CHECK(counted(a, 1, 0));  // the tokens alone
  CHECK(counted(b, 3, 1));
  CHECK(counted(a, 1, 1));  // on the device
  const int waits = memory->n_waits;
  CHECK(counted(a, 1, 0) && memory->n_waits == waits + 1);
  // A prefix that grows is another one.
  EncodeOutput output;
  EncodeInput more = random_input(1, 5, 1, 7);
  more.want_key_value = true;
  CHECK(f.cpu->encode(more, &output).ok());
  append_row(f.artifact.manifest.model, {output.key, output.value, 0, 5, 5}, &first);
  CHECK(first.device_copy.is_empty());
  read_prefix(first, &a);
  CHECK(counted(a, 3, 1));
}

void test_bound_engine_without_graphs_waits_before_it_binds(const Fixture& f) {
  const auto memory = std::make_shared<HostMemory>();
  const auto engine = f.bound(memory, false);
  CHECK(engine != nullptr);
  if (engine == nullptr) return;
  const Prefix prefix = prefix_of(f, *f.cpu, 12, 3);
  EncodeInput input = random_input(1, 16, 1, 6);
  read_prefix(prefix, &input);
  CHECK(agrees(*engine, *f.cpu, input));
  const int waits = memory->n_waits, uploads = memory->n_uploads;
  CHECK(agrees(*engine, *f.cpu, input));
  CHECK(memory->n_waits == waits + 2 && memory->n_uploads == uploads + 1);
  CHECK(memory->n_copies == 0);  // the prefix is read where it lies
}

void test_bound_engine_frees_the_copy_with_its_prefix(const Fixture& f) {
  const auto memory = std::make_shared<HostMemory>();
  auto engine = f.bound(memory);
  CHECK(engine != nullptr);
  if (engine == nullptr) return;
  EncodeInput input = random_input(1, 16, 1, 8);
  CHECK(agrees(*engine, *f.cpu, input));
  const size_t before = memory->held.size();
  auto prefix = std::make_unique<Prefix>(prefix_of(f, *f.cpu, 9, 9));
  read_prefix(*prefix, &input);
  CHECK(agrees(*engine, *f.cpu, input) && memory->held.size() == before + 1);
  prefix.reset();
  CHECK(memory->held.size() == before + 1);  // not while another thread may run
  CHECK(agrees(*engine, *f.cpu, random_input(1, 16, 1, 8)) && memory->held.size() == before);
  engine.reset();
  CHECK(memory->held.empty());
}

void test_bound_engine_without_memory_fails_and_goes_on(const Fixture& f) {
  const auto memory = std::make_shared<HostMemory>();
  const auto engine = f.bound(memory);
  CHECK(engine != nullptr);
  if (engine == nullptr) return;
  const Prefix prefix = prefix_of(f, *f.cpu, 30, 10);
  EncodeInput input = random_input(1, 16, 1, 11);
  read_prefix(prefix, &input);
  memory->n_bytes_left = 1000;
  EncodeOutput output;
  CHECK(engine->encode(input, &output).code == csrm::Code::kEngineFailed);
  CHECK(output.reward == nullptr && prefix.device_copy.is_empty());
  memory->n_bytes_left = size_t{1} << 40;
  CHECK(agrees(*engine, *f.cpu, input));
  const auto small = std::make_shared<HostMemory>();
  small->n_bytes_left = 1000;
  CHECK(f.bound(small) == nullptr && small->held.empty());
}

void test_bound_engine_threads_get_their_own_results(const Fixture& f) {
  const auto engine = f.bound(std::make_shared<HostMemory>());
  CHECK(engine != nullptr);
  if (engine == nullptr) return;
  const Prefix shared = prefix_of(f, *f.cpu, 11, 12);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (unsigned i = 0; i < 4; ++i) {
        const Prefix own = prefix_of(f, *f.cpu, 6 + t, 20 + t);
        EncodeInput input = random_input(1 + t % 2, 10 + 7 * t, 1, 30 * t + i);
        read_prefix(i % 2 == 0 ? shared : own, &input);
        CHECK(agrees(*engine, *f.cpu, input));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

void test_bound_engine_more_shapes_than_graphs_go_on(const Fixture& f) {
  const auto engine = f.bound(std::make_shared<HostMemory>());
  CHECK(engine != nullptr);
  if (engine == nullptr) return;
  const Prefix whole = prefix_of(f, *f.cpu, csrm::kMaxGraphs + 8, 50);
  for (const int round : {0, 1}) {
    for (size_t n = 1; n <= csrm::kMaxGraphs + 8; n += round == 0 ? 1 : 7) {
      std::vector<size_t> places(n);
      std::iota(places.begin(), places.end(), size_t{0});
      const Prefix prefix = picked_tokens(f.artifact.manifest.model, whole, places);
      EncodeInput input = random_input(1, 3, 1, static_cast<unsigned>(n));
      read_prefix(prefix, &input);
      CHECK(agrees(*engine, *f.cpu, input));
    }
  }
}

// The graph for CUDA with its operators on the CPU: prefixes go to the "device" as fp16.
void test_bound_engine_runs_the_graph_for_cuda(const Fixture& f, const char* operators_library) {
  CHECK(!f.artifact.cuda_path.empty());
  ::setenv("CSRM_CUDA_LIBRARY", operators_library, 1);
  const auto operators = csrm::load_cuda_operators();
  ::unsetenv("CSRM_CUDA_LIBRARY");
  CHECK(operators.ok() && operators.value().architectures == "emulated");
  if (!operators.ok()) return;
  const auto memory = std::make_shared<HostMemory>();
  const auto set_up = [&](const OrtApi* api, OrtSessionOptions* options) {
    return csrm::take_status(api, operators.value().add(api, options), "operators");
  };
  const auto engine = f.bound(memory, f.artifact.cuda_path, set_up, true);
  CHECK(engine != nullptr);
  if (engine == nullptr) return;
  const Prefix exact = prefix_of(f, *f.cpu, 21, 40), own = prefix_of(f, *engine, 21, 40);
  for (const unsigned seed : {41u, 42u, 43u}) {
    EncodeInput input = random_input(2, 9 + seed % 3, 1, seed), expected_input = input;
    read_prefix(own, &input);
    read_prefix(exact, &expected_input);
    EncodeOutput got, again, expected;
    CHECK(engine->encode(input, &got).ok() && engine->encode(input, &again).ok());
    CHECK(f.cpu->encode(expected_input, &expected).ok());
    CHECK(same_bits(got.reward, again.reward, 2));
    for (int i = 0; i < 2; ++i) CHECK(std::abs(got.compliance[i] - expected.compliance[i]) < 5e-3f);
  }
  CHECK(!own.device_copy.is_empty() && exact.device_copy.is_empty());
}

void test_with_model(const char* artifact, const char* library, const char* operators) {
  csrm::Result<csrm::Artifact> opened = csrm::open_artifact(artifact);
  CHECK(opened.ok());
  if (!opened.ok()) return;
  Fixture f{std::move(opened).value(), nullptr, library};
  if (f.artifact.manifest.is_causal) {
    model_tokens = {true, 1, static_cast<int64_t>(f.artifact.manifest.model.vocab_size)};
  }
  csrm::EngineOptions options;
  options.library = library;
  auto cpu = csrm::load_ort_engine(f.artifact.fused_path, f.artifact.manifest.model, true, options);
  CHECK(cpu.ok() && cpu.value()->device() == csrm::Device::kCpu);
  if (!cpu.ok()) return;
  f.cpu = std::move(cpu).value();
  test_bound_engine_gives_the_cpu_engines_bits(f, true);
  test_bound_engine_gives_the_cpu_engines_bits(f, false);
  test_bound_engine_without_graphs_waits_before_it_binds(f);
  test_bound_engine_copies_a_prefix_once(f);
  test_bound_engine_frees_the_copy_with_its_prefix(f);
  test_bound_engine_without_memory_fails_and_goes_on(f);
  test_bound_engine_threads_get_their_own_results(f);
  test_bound_engine_more_shapes_than_graphs_go_on(f);
  if (operators != nullptr) test_bound_engine_runs_the_graph_for_cuda(f, operators);
}

}  // namespace

int main(int argc, char** argv) {
  test_run_shape_padding_is_the_least_of_few_sizes();
  test_device_prefix_slot_keeps_one_copy_and_no_failure();
  if (argc >= 3) {
    test_with_model(argv[1], argv[2], argc > 3 ? argv[3] : nullptr);
  } else {
    csrm_test::skip(7, csrm_test::kNeedsModel);
  }
  return csrm_test::summary();
}
