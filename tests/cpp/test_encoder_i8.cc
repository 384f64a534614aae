// EncoderI8 in one version (the instruction set named on the command line): calls on one and on
// several threads through Phases, of one encoder at once too, which must agree to the bit; and
// arguments that must be refused. Made for the sanitizers: each array ends where its memory ends.
// Not: what the numbers are, and the operator inside ONNX Runtime
// (tests/python/test_encoder_i8.py).
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "check.h"
#include "isa_tests.h"
#include "kernel_data.h"
#include "kernels/encoder_i8.h"
#include "kernels/encoder_i8_run.h"
#include "kernels/phases.h"

namespace {

using csrm::Code;
using csrm::Result;
using csrm::Status;
using csrm::kernels::Aligned;
using csrm::kernels::aligned;
using csrm::kernels::EncoderI8;
using csrm::kernels::EncoderI8Call;
using csrm::kernels::EncoderI8Params;
using csrm::kernels::EncoderI8Run;
using csrm::kernels::EncoderLayerParams;
using csrm::kernels::Isa;
using csrm::kernels::kByteLevels;
using csrm::kernels::kWordLevels;
using csrm::kernels::LinearI8Params;
using csrm::kernels::NormParams;
using csrm::kernels::PackedPrefix;
using csrm::kernels::Phases;
using csrm_test::Floats;
using csrm_test::Random;

constexpr int64_t kIds = 11, kPositions = 23, kSegments = 3;

struct Case {
  int64_t n_layers, n_heads, head_dim, inner;
  int64_t n_batch, n_tokens, n_pooled, n_prefix;
  int64_t levels;
  bool is_bf16;
};

// Weights of an encoder and the pointers to them. Not copied: pointers stay where they are.
class Weights {
 public:
  explicit Weights(const Case& c) : random_(7), levels_(c.levels) {
    const int64_t hidden = c.n_heads * c.head_dim;
    params.n_heads = c.n_heads;
    params.head_dim = c.head_dim;
    params.scale = 0.3f;
    params.epsilon = 1e-12f;
    params.is_bf16 = c.is_bf16;
    params.embedding = {integers(kIds * hidden),
                        floats(kIds, 0.02f),
                        floats(kPositions * hidden),
                        floats(kSegments * hidden),
                        norm(hidden),
                        kIds,
                        kPositions,
                        kSegments};
    for (int64_t i = 0; i < c.n_layers; ++i) add_layer(hidden, c.inner, i + 1 == c.n_layers);
  }
  Weights(const Weights&) = delete;

  EncoderI8Params params{};

 private:
  const float* floats(int64_t n, float size = 1.0f, float offset = 0.0f) {
    floats_.push_back(random_.floats(n, size, offset));
    return floats_.back().data();
  }
  const int8_t* integers(int64_t n) {
    integers_.emplace_back();
    for (int64_t i = 0; i < n; ++i) {
      integers_.back().push_back(static_cast<int8_t>(random_.below(255) - 127));
    }
    return integers_.back().data();
  }
  NormParams norm(int64_t n) { return {floats(n, 0.2f, 1.0f), floats(n, 0.2f)}; }
  LinearI8Params linear(int64_t n_in, int64_t n_out, bool has_gelu = false) {
    const float* scale = floats(n_out, 0.001f, 0.01f);
    return {integers(n_in * n_out), scale, floats(n_out), n_in, n_out, levels_, has_gelu};
  }
  void add_layer(int64_t hidden, int64_t inner, bool is_last) {
    EncoderLayerParams layer{};
    if (is_last) layer.query = linear(hidden, hidden);
    layer.key_value = linear(hidden, (is_last ? 2 : 3) * hidden);
    layer.attended = linear(hidden, hidden);
    layer.attention_norm = norm(hidden);
    layer.up = linear(hidden, inner, true);
    layer.down = linear(inner, hidden);
    if (!is_last) layer.output_norm = norm(hidden);
    params.layers.push_back(layer);
  }

  Random random_;
  int64_t levels_;
  std::vector<Floats> floats_;  // whose memory stays when the vector grows
  std::vector<std::vector<int8_t>> integers_;
};

// The arrays of a call. Not copied: pointers stay where they are.
struct Data {
  Random random;
  std::vector<int64_t> input_ids, position_ids, segment_ids, visible, pooled_at;
  Floats prefix_key, prefix_value, key, value, pooled;
  EncoderI8Call call{};

  explicit Data(const Case& c, uint32_t seed = 1)
      : random(seed),
        input_ids(random.integers(c.n_batch * c.n_tokens, 0, kIds - 1)),
        position_ids(random.integers(c.n_batch * c.n_tokens, 0, kPositions - 1)),
        segment_ids(random.integers(c.n_batch * c.n_tokens, 0, kSegments - 1)),
        visible(random.integers(c.n_batch * c.n_tokens, 0, c.n_tokens)),
        pooled_at(random.integers(c.n_batch * c.n_pooled, -1, c.n_tokens - 1)),
        prefix_key(random.floats(c.n_layers * c.n_heads * c.n_prefix * c.head_dim)),
        prefix_value(random.floats(prefix_key.size())),
        key(c.n_batch * c.n_layers * c.n_heads * c.n_tokens * c.head_dim, -9.0f),
        value(key.size(), -9.0f),
        pooled(c.n_batch * c.n_pooled * c.n_heads * c.head_dim, -9.0f) {
    call.n_batch = c.n_batch;
    call.n_tokens = c.n_tokens;
    call.n_pooled = c.n_pooled;
    call.n_prefix = c.n_prefix;
    call.input_ids = input_ids.data();
    call.position_ids = position_ids.data();
    call.segment_ids = segment_ids.data();
    call.visible = visible.data();
    call.pooled_at = pooled_at.data();
    call.prefix_key = prefix_key.data();
    call.prefix_value = prefix_value.data();
    call.key = key.data();
    call.value = value.data();
    call.pooled = pooled.data();
  }
  Data(const Data&) = delete;

  bool has_outputs_of(const Data& other) const {
    return key.equals(other.key) && value.equals(other.value) && pooled.equals(other.pooled);
  }
};

// In memory that holds no numbers before.
void run(const EncoderI8& encoder, const EncoderI8Call& call, int n_threads) {
  CHECK(encoder.check(call).ok());
  const size_t size = EncoderI8Run::workspace_size(encoder, call);
  const Aligned<char> workspace = aligned<char>(size);
  std::memset(workspace.get(), 0xff, size);
  EncoderI8Run encoder_run(encoder, call, workspace.get());
  Phases<EncoderI8Run> phases(&encoder_run);
  std::vector<std::thread> threads;
  for (int i = 1; i < n_threads; ++i) threads.emplace_back([&] { phases.run(); });
  phases.run();
  for (std::thread& thread : threads) thread.join();
  CHECK(!encoder_run.has_failed());
}

const Case kCases[] = {
    {1, 1, 1, 1, 1, 1, 1, 0, kByteLevels, false},
    {2, 2, 32, 70, 3, 1, 1, 40, kWordLevels, true},
    {2, 1, 16, 33, 1, 15, 3, 5, kByteLevels, false},
    {3, 3, 7, 29, 2, 17, 2, 3, kWordLevels, true},
    {2, 2, 32, 96, 3, 40, 3, 40, kByteLevels, true},   // groups, on two threads
    {2, 2, 32, 96, 5, 70, 2, 400, kWordLevels, true},  // always groups
    {2, 1, 32, 40, 4, 3, 90, 5, kWordLevels, false},   // more read than there is
    {2, 1, 16, 40, 2, 20, 0, 5, kByteLevels, false},   // nothing read
    {2, 1, 16, 40, 0, 20, 1, 5, kByteLevels, false},   // no rows
    {2, 1, 16, 40, 3, 0, 0, 5, kByteLevels, false},    // no tokens
};

void test_encoder_i8_any_threads_give_equal_bits(Isa isa) {
  for (const Case& c : kCases) {
    const Weights weights(c);
    const Result<EncoderI8> made = EncoderI8::make(weights.params, isa);
    CHECK(made.ok());
    if (!made.ok()) continue;
    Data alone(c);
    run(made.value(), alone.call, 1);
    for (int64_t i = 0; i < alone.pooled.size(); ++i) CHECK(alone.pooled[i] != -9.0f);
    for (int64_t i = 0; i < alone.key.size(); ++i) CHECK(alone.key[i] != -9.0f);
    for (int64_t i = 0; i < alone.value.size(); ++i) CHECK(alone.value[i] != -9.0f);
    for (const int n_threads : {2, 3, 4, 2, 3, 4}) {
      Data shared(c);
      run(made.value(), shared.call, n_threads);
      CHECK(shared.has_outputs_of(alone));
    }
  }
}

void test_encoder_i8_calls_of_one_encoder_at_once_give_equal_bits(Isa isa) {
  const Case c{2, 2, 32, 96, 3, 40, 3, 40, kWordLevels, true};
  const Weights weights(c);
  const Result<EncoderI8> made = EncoderI8::make(weights.params, isa);
  CHECK(made.ok());
  if (!made.ok()) return;
  std::vector<std::thread> callers;
  for (uint32_t seed = 1; seed <= 3; ++seed) {
    callers.emplace_back([&made, &c, seed] {
      Data alone(c, seed), shared(c, seed);
      run(made.value(), alone.call, 1);
      run(made.value(), shared.call, 2);
      CHECK(shared.has_outputs_of(alone));
    });
  }
  for (std::thread& caller : callers) caller.join();
}

// The calls that read one prefix, alone and at once: who comes first packs none of it, the second
// all, others read what is there or wait for nobody.
void test_encoder_i8_packed_prefix_gives_equal_bits(Isa isa) {
  for (const Case& c : {Case{2, 2, 32, 96, 3, 40, 3, 100, kWordLevels, true},
                        Case{2, 3, 64, 96, 1, 17, 1, 430, kByteLevels, true},
                        Case{1, 2, 32, 64, 2, 300, 1, 31, kByteLevels, true}}) {
    const Weights weights(c);
    const Result<EncoderI8> made = EncoderI8::make(weights.params, isa);
    CHECK(made.ok());
    if (!made.ok()) continue;
    Data alone(c);
    alone.prefix_key[(c.n_prefix / 2) * c.head_dim] = std::numeric_limits<float>::infinity();
    run(made.value(), alone.call, 1);
    PackedPrefix packed;
    const auto call_again = [&](int n_threads) {
      Data again(c);
      again.call.prefix_key = alone.call.prefix_key;
      if (packed.begin(c.n_layers * c.n_heads, c.n_prefix, c.head_dim)) {
        again.call.packed_prefix = &packed;
      }
      run(made.value(), again.call, n_threads);
      CHECK(again.has_outputs_of(alone));
    };
    call_again(1);
    CHECK(packed.n_bytes() == 0);
    std::vector<std::thread> callers;
    for (int i = 0; i < 3; ++i) callers.emplace_back([&] { call_again(2); });
    for (std::thread& caller : callers) caller.join();
    call_again(1);
    const int64_t n_whole = c.n_prefix / PackedPrefix::kChunk * PackedPrefix::kChunk;
    CHECK(packed.n_bytes() ==
          static_cast<size_t>(4 * c.n_layers * c.n_heads * n_whole * c.head_dim));
  }
}

void test_encoder_i8_keys_and_values_may_be_left_out(Isa isa) {
  const Case c{2, 2, 32, 96, 3, 40, 3, 40, kWordLevels, true};
  const Weights weights(c);
  const Result<EncoderI8> made = EncoderI8::make(weights.params, isa);
  CHECK(made.ok());
  if (!made.ok()) return;
  Data whole(c), without(c);
  without.call.key = without.call.value = nullptr;
  run(made.value(), whole.call, 1);
  run(made.value(), without.call, 2);
  CHECK(without.pooled.equals(whole.pooled));
  CHECK(without.key[0] == -9.0f);
}

constexpr Case kSmall{2, 2, 8, 24, 2, 5, 2, 3, kByteLevels, false};

void test_encoder_i8_bad_weights_are_refused(Isa isa) {
  const Weights weights(kSmall);
  const auto message = [&](void (*change)(EncoderI8Params*)) {
    EncoderI8Params p = weights.params;
    change(&p);
    const Result<EncoderI8> made = EncoderI8::make(p, isa);
    if (made.ok()) return std::string();
    CHECK(made.status().code == Code::kBadArgument);
    return made.status().message;
  };
  const auto says = [&](const char* part, void (*change)(EncoderI8Params*)) {
    return message(change).find(part) != std::string::npos;
  };
  CHECK(message([](EncoderI8Params*) {}).empty());
  CHECK(says("there are no layers", [](EncoderI8Params* p) { p->layers.clear(); }));
  CHECK(says("0 heads of 8", [](EncoderI8Params* p) { p->n_heads = 0; }));
  CHECK(says("2 heads of -1", [](EncoderI8Params* p) { p->head_dim = -1; }));
  CHECK(says("scale is not finite", [](EncoderI8Params* p) { p->scale = 1.0f / 0.0f; }));
  CHECK(says("epsilon is negative", [](EncoderI8Params* p) { p->epsilon = -1e-6f; }));
  CHECK(says("have 0, 23, 3", [](EncoderI8Params* p) { p->embedding.n_tokens = 0; }));
  CHECK(says("pointer is null", [](EncoderI8Params* p) { p->embedding.segments = nullptr; }));
  CHECK(says("pointer is null", [](EncoderI8Params* p) { p->embedding.norm.bias = nullptr; }));
  CHECK(says("query_key_value of layer 0 is 16 x 47; it must be 16 x 48",
             [](EncoderI8Params* p) { p->layers[0].key_value.n_out = 47; }));
  CHECK(says("key_value of layer 1 is 16 x 48; it must be 16 x 32",
             [](EncoderI8Params* p) { p->layers[1].key_value.n_out = 48; }));
  CHECK(says("query of layer 1", [](EncoderI8Params* p) { p->layers[1].query.n_in = 0; }));
  CHECK(says("attended of layer 0", [](EncoderI8Params* p) { p->layers[0].attended.n_in = 15; }));
  CHECK(says("up of layer 1", [](EncoderI8Params* p) { p->layers[1].up.n_out = 25; }));
  CHECK(says("down of layer 1", [](EncoderI8Params* p) { p->layers[1].down.n_in = 23; }));
  CHECK(says("pointer is null",
             [](EncoderI8Params* p) { p->layers[1].attention_norm.weight = nullptr; }));
  CHECK(
      says("pointer is null", [](EncoderI8Params* p) { p->layers[0].output_norm.bias = nullptr; }));
  CHECK(says("LinearI8", [](EncoderI8Params* p) { p->layers[0].up.values = nullptr; }));
  CHECK(says("LinearI8", [](EncoderI8Params* p) { p->layers[1].down.levels = 128; }));
}

void test_encoder_i8_bad_calls_are_refused(Isa isa) {
  const Weights weights(kSmall);
  const Result<EncoderI8> made = EncoderI8::make(weights.params, isa);
  CHECK(made.ok());
  if (!made.ok()) return;
  const auto says = [&](const char* part, void (*change)(Data*)) {
    Data d(kSmall);
    change(&d);
    const Status status = made.value().check(d.call);
    return status.code == Code::kBadArgument && status.message.find(part) != std::string::npos;
  };
  CHECK(made.value().check(Data(kSmall).call).ok());
  CHECK(says("count is negative", [](Data* d) { d->call.n_batch = -1; }));
  CHECK(says("count is negative", [](Data* d) { d->call.n_prefix = -1; }));
  CHECK(says("pointer is null", [](Data* d) { d->call.segment_ids = nullptr; }));
  CHECK(says("pointer is null", [](Data* d) { d->call.value = nullptr; }));
  CHECK(says("pointer is null", [](Data* d) { d->call.pooled_at = nullptr; }));
  CHECK(says("pointer is null", [](Data* d) { d->call.prefix_value = nullptr; }));
  CHECK(says("rows have no tokens", [](Data* d) { d->call.n_tokens = 0; }));
  CHECK(says("input_ids[1, 4] is 11; it must be at least 0 and below 11",
             [](Data* d) { d->input_ids[9] = kIds; }));
  CHECK(says("input_ids[0, 0] is -1", [](Data* d) { d->input_ids[0] = -1; }));
  CHECK(says("position_ids[0, 3] is 23", [](Data* d) { d->position_ids[3] = kPositions; }));
  CHECK(says("segment_ids[1, 0] is 3", [](Data* d) { d->segment_ids[5] = kSegments; }));
  CHECK(says("visible[1, 0] is 6; it must be at least 0 and below 6",
             [](Data* d) { d->visible[5] = 6; }));
  CHECK(says("pooled_at[1, 1] is 5; it must be below 5", [](Data* d) { d->pooled_at[3] = 5; }));
  CHECK(!says("pooled_at", [](Data* d) { d->pooled_at[3] = INT64_MIN; }));
}

}  // namespace

int main(int argc, char** argv) {
  return csrm_test::run_isa_tests(
      argc, argv,
      {test_encoder_i8_any_threads_give_equal_bits,
       test_encoder_i8_calls_of_one_encoder_at_once_give_equal_bits,
       test_encoder_i8_packed_prefix_gives_equal_bits,
       test_encoder_i8_keys_and_values_may_be_left_out, test_encoder_i8_bad_weights_are_refused,
       test_encoder_i8_bad_calls_are_refused},
      csrm::kernels::linear_i8_supported);
}
