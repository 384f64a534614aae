// Timings of the CUDA kernels: a graph of equal launches is replayed and timed with events; the
// table gives the median over replays, per launch. Operands stay where the launch before left them
// (mostly in the second-level cache), as in a model. Not: a comparison with other libraries.
//
// Columns: work per second and its share of the ceiling that this program measures on this GPU:
// products of attention against mma.sync alone, its powers of two against ex2 alone, and the bytes
// that must move (each tensor once) against a copy in device memory, which reads and writes.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>

#include "ceilings.h"
#include "harness.h"
#include "kernels/cuda/add_norm.h"
#include "kernels/cuda/keys_values.h"
#include "kernels/cuda/prefix_attention.h"
#include "kernels/cuda/reward_head.h"
#include "kernels/cuda/rope.h"
#include "kernels/cuda/swiglu.h"

namespace csrm_test {
namespace {

namespace gpu = csrm::kernels::cuda;
using gpu::AttentionSchedule;
using gpu::AttentionVersion;
using Launch = std::function<csrm::Status(cudaStream_t)>;

constexpr double kReplayUs = 1500;  // aimed at
constexpr int kMostLaunches = 50, kReplays = 11, kWarmups = 2;

struct Ceilings {
  double flops_per_s = 0, powers_per_s = 0, bytes_per_s = 0;
};

struct Work {
  double flops = 0, powers = 0, bytes = 0;
};

// A stream, two events and a table. Errors are kept; after one nothing more is timed.
class Bench {
 public:
  Bench() {
    keep(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    keep(cudaEventCreate(&begin_));
    keep(cudaEventCreate(&end_));
  }
  ~Bench() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
    cudaStreamDestroy(stream_);
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  bool ok() const { return error_ == cudaSuccess; }
  void print_error() const { std::printf("FAILED: CUDA error %s\n", cudaGetErrorString(error_)); }
  // Median microseconds of one launch.
  double time(const Launch& launch);
  void print(const std::string& what, const std::string& way, double us, const Work& work) const;
  Ceilings ceilings;

 private:
  void keep(cudaError_t error) {
    if (error_ == cudaSuccess) error_ = error;
  }
  // One call of `run` between the events, us.
  double timed(const std::function<void()>& run) {
    keep(cudaEventRecord(begin_, stream_));
    run();
    keep(cudaEventRecord(end_, stream_));
    keep(cudaEventSynchronize(end_));
    float ms = 0;
    if (ok()) keep(cudaEventElapsedTime(&ms, begin_, end_));
    return ms * 1e3;
  }
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  cudaError_t error_ = cudaSuccess;
};

double Bench::time(const Launch& launch) {
  const auto once = [&] {
    if (const csrm::Status status = launch(stream_); !status.ok()) {
      std::printf("FAILED: %s\n", status.message.c_str());
      keep(cudaErrorUnknown);
    }
  };
  keep(cudaDeviceSynchronize());  // operands were copied on another stream
  timed(once);
  const double estimate = std::max(1.0, timed(once));
  const int n = std::clamp(static_cast<int>(kReplayUs / estimate), 1, kMostLaunches);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  keep(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < n; ++i) once();
  keep(cudaStreamEndCapture(stream_, &graph));
  if (ok()) keep(cudaGraphInstantiate(&replay, graph, 0));
  if (!ok()) return NAN;
  std::vector<double> times;
  const int replays = estimate > 20000 ? 3 : kReplays;
  for (int i = 0; i < kWarmups + replays; ++i) {
    const double us = timed([&] { keep(cudaGraphLaunch(replay, stream_)); });
    if (i >= kWarmups) times.push_back(us / n);
  }
  cudaGraphExecDestroy(replay);
  cudaGraphDestroy(graph);
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

void Bench::print(const std::string& what, const std::string& way, double us,
                  const Work& work) const {
  const double s = us * 1e-6;
  std::printf("%-44s %-14s %9.2f us", what.c_str(), way.c_str(), us);
  if (work.flops > 0) {
    std::printf("  %7.1f TFLOP/s %5.1f%%", work.flops / s * 1e-12,
                100 * work.flops / s / ceilings.flops_per_s);
    std::printf("  %5.2f Texp/s %5.1f%%", work.powers / s * 1e-12,
                100 * work.powers / s / ceilings.powers_per_s);
  }
  std::printf("  %8.1f GB/s %5.1f%%  (%.3g MB", work.bytes / s * 1e-9,
              100 * work.bytes / s / ceilings.bytes_per_s, work.bytes * 1e-6);
  if (work.flops > 0) std::printf(", %.3g GFLOP", work.flops * 1e-9);
  std::printf(")\n");
  std::fflush(stdout);
}

void measure_ceilings(Bench& bench) {
  int n_processors = 0;
  cudaDeviceGetAttribute(&n_processors, cudaDevAttrMultiProcessorCount, 0);
  constexpr size_t kCopied = size_t{256} << 20;
  DeviceArray from(kCopied), to(kCopied), sink(sizeof(float));
  int64_t flops = 0, powers = 0;
  const auto ok = [](cudaError_t error) {
    return error == cudaSuccess
               ? csrm::Status::success()
               : csrm::Status{csrm::Code::kEngineFailed, cudaGetErrorString(error)};
  };
  const double multiply_us = bench.time([&](cudaStream_t stream) {
    flops = launch_multiply_adds(n_processors, sink.as<float>(), stream);
    return ok(cudaGetLastError());
  });
  const double power_us = bench.time([&](cudaStream_t stream) {
    powers = launch_powers(n_processors, sink.as<float>(), stream);
    return ok(cudaGetLastError());
  });
  const double copy_us = bench.time([&](cudaStream_t stream) {
    return ok(cudaMemcpyAsync(to.data(), from.data(), kCopied, cudaMemcpyDeviceToDevice, stream));
  });
  bench.ceilings.flops_per_s = static_cast<double>(flops) / (multiply_us * 1e-6);
  bench.ceilings.powers_per_s = static_cast<double>(powers) / (power_us * 1e-6);
  bench.ceilings.bytes_per_s = 2.0 * kCopied / (copy_us * 1e-6);
  std::printf("ceilings: mma.sync fp16 %.0f TFLOP/s, ex2 %.2f T/s, copy %.0f GB/s\n",
              bench.ceilings.flops_per_s * 1e-12, bench.ceilings.powers_per_s * 1e-12,
              bench.ceilings.bytes_per_s * 1e-9);
}

struct AttentionShape {
  const char* name;
  int heads, kv_heads, head_dim;
  int batch, queries, tokens, prefix;
  bool is_causal;  // else every query sees all of its row
  DType dtype;
};

constexpr DType kHalf = DType::kFloat16, kBrain = DType::kBFloat16, kSingle = DType::kFloat32;
constexpr AttentionShape kAttentionShapes[] = {
    {"MiniLM", 12, 12, 32, 1, 128, 128, 256, false, kHalf},
    {"MiniLM", 12, 12, 32, 8, 128, 128, 256, false, kHalf},
    {"MiniLM", 12, 12, 32, 64, 128, 128, 256, false, kHalf},
    {"MiniLM", 12, 12, 32, 1, 128, 128, 1024, false, kHalf},
    {"MiniLM", 12, 12, 32, 8, 128, 128, 1024, false, kHalf},
    {"MiniLM", 12, 12, 32, 64, 128, 128, 1024, false, kHalf},
    {"MiniLM", 12, 12, 32, 1, 128, 128, 4096, false, kHalf},
    {"MiniLM", 12, 12, 32, 8, 128, 128, 4096, false, kHalf},
    {"MiniLM", 12, 12, 32, 64, 128, 128, 4096, false, kHalf},
    {"MiniLM fp32", 12, 12, 32, 8, 128, 128, 256, false, kSingle},
    {"MiniLM last layer", 12, 12, 32, 64, 1, 128, 1024, false, kHalf},
    {"MPNet", 12, 12, 64, 8, 128, 128, 1024, false, kHalf},
    {"8B", 32, 8, 128, 1, 128, 128, 1024, true, kBrain},
    {"8B", 32, 8, 128, 8, 128, 128, 1024, true, kBrain},
    {"8B", 32, 8, 128, 8, 128, 128, 4096, true, kBrain},
    {"8B one token", 32, 8, 128, 64, 1, 128, 1024, false, kBrain},
};

struct Way {
  const char* name;
  AttentionVersion version;
  AttentionSchedule schedule;
  int tile_rows;
};
constexpr Way kWays[] = {
    {"naive", AttentionVersion::kNaive, AttentionSchedule::kAuto, 0},
    {"tiled", AttentionVersion::kTiled, AttentionSchedule::kAuto, 0},
    {"mma whole 64", AttentionVersion::kMma, AttentionSchedule::kWhole, 64},
    {"mma whole 128", AttentionVersion::kMma, AttentionSchedule::kWhole, 128},
    {"mma split 64", AttentionVersion::kMma, AttentionSchedule::kSplit, 64},
    {"mma split 128", AttentionVersion::kMma, AttentionSchedule::kSplit, 128},
    {"best", AttentionVersion::kBest, AttentionSchedule::kAuto, 0},
};

void time_attention(const AttentionShape& s, Bench& bench) {
  Random random(seed_of(s.name));
  const int own = s.kv_heads * s.head_dim, columns = s.heads * s.head_dim;
  const size_t element = gpu::dtype_bytes(s.dtype);
  const size_t n_query = static_cast<size_t>(s.batch) * s.queries * columns;
  const size_t n_own = static_cast<size_t>(s.batch) * s.tokens * 2 * own;
  const size_t n_prefix = static_cast<size_t>(own) * s.prefix;
  const DeviceArray query(random.normals(n_query), s.dtype), rows(random.normals(n_own), s.dtype);
  const DeviceArray keys(random.normals(n_prefix), s.dtype),
      values(random.normals(n_prefix), s.dtype);
  const DeviceArray context(n_query * element);
  Work work;
  std::vector<int64_t> seen(static_cast<size_t>(s.batch) * s.queries);
  for (size_t i = 0; i < seen.size(); ++i) {
    seen[i] = s.is_causal ? static_cast<int64_t>(i) % s.queries + 1 : s.tokens;
    work.powers += static_cast<double>(s.heads) * static_cast<double>(s.prefix + seen[i]);
  }
  work.flops = work.powers * 4 * s.head_dim;
  work.bytes = static_cast<double>((2 * n_query + n_own + 2 * n_prefix) * element);
  const DeviceArray visible(seen);
  gpu::PrefixAttentionParams p{};
  p.query = query.data();
  p.key_value = rows.data();
  p.prefix_key = keys.data();
  p.prefix_value = values.data();
  p.visible = visible.as<int64_t>();
  p.context = context.data();
  p.n_batch = s.batch;
  p.n_queries = s.queries;
  p.n_tokens = s.tokens;
  p.n_prefix = s.prefix;
  p.n_heads = s.heads;
  p.n_kv_heads = s.kv_heads;
  p.head_dim = s.head_dim;
  p.n_layers = 1;
  p.query_width = columns;
  p.key_value_width = 2 * own;
  p.value_offset = own;
  p.scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
  p.dtype = s.dtype;
  const DeviceArray workspace(gpu::prefix_attention_workspace_bytes(p));
  p.workspace = workspace.data();
  p.workspace_bytes = workspace.size();
  const bool has_mma = gpu::best_attention_version(p) == AttentionVersion::kMma;
  char what[64];
  std::snprintf(what, sizeof(what), "%s %d x %d of %d over %d", s.name, s.batch, s.queries,
                s.tokens, s.prefix);
  for (const Way& way : kWays) {
    if (way.version == AttentionVersion::kMma && !has_mma) continue;
    if (way.tile_rows == 128 && s.head_dim == 128) continue;
    if (way.version == AttentionVersion::kNaive && work.flops > 3e9) continue;  // takes too long
    if (way.version == AttentionVersion::kTiled && work.flops > 3e10) continue;
    p.version = way.version;
    p.schedule = way.schedule;
    p.tile_rows = way.tile_rows;
    const double us =
        bench.time([&](cudaStream_t stream) { return gpu::prefix_attention(p, stream); });
    if (!bench.ok()) return;
    bench.print(what, way.name, us, work);
  }
}

void time_head(int batch, int tokens, int hidden, int verbalizers, DType dtype, Bench& bench) {
  Random random(1);
  const auto width = static_cast<size_t>(hidden);
  const DeviceArray states(random.normals(batch * tokens * width), dtype);
  const DeviceArray norm(random.normals(2 * width), DType::kFloat32);
  const DeviceArray rows(random.normals(verbalizers * width), DType::kFloat32);
  const DeviceArray bias(random.normals(verbalizers + 2), DType::kFloat32);
  const DeviceArray pooled_at(std::vector<int64_t>(batch, tokens - 1));
  const DeviceArray results(2 * batch * sizeof(float));
  gpu::RewardHeadParams p{};
  p.hidden = states.data();
  p.pooled_at = pooled_at.as<int64_t>();
  p.norm_weight = norm.as<float>();
  p.norm_bias = norm.as<float>() + width;
  p.rows = rows.as<float>();
  p.row_bias = bias.as<float>();
  p.calibration = bias.as<float>() + verbalizers;
  p.reward = results.as<float>();
  p.compliance = results.as<float>() + batch;
  p.n_batch = batch;
  p.n_tokens = tokens;
  p.n_pooled = 1;
  p.n_hidden = hidden;
  p.n_verbalizers = verbalizers;
  p.n_safe = verbalizers / 2;
  p.epsilon = 1e-5f;
  p.dtype = dtype;
  const double us = bench.time([&](cudaStream_t stream) { return gpu::reward_head(p, stream); });
  if (!bench.ok()) return;
  Work work;
  work.bytes = static_cast<double>(batch * width * gpu::dtype_bytes(dtype) +
                                   (verbalizers + 2) * width * sizeof(float));
  char what[64];
  std::snprintf(what, sizeof(what), "RewardHead %d x %d, %d rows", batch, hidden, verbalizers);
  bench.print(what, gpu::dtype_name(dtype), us, work);
}

void time_norm(int rows, int columns, DType dtype, Bench& bench) {
  Random random(1);
  const size_t n = static_cast<size_t>(rows) * columns, bytes = n * gpu::dtype_bytes(dtype);
  const DeviceArray x(bytes), residual(bytes), y(bytes);  // NaN takes no longer
  const DeviceArray weight(random.normals(columns), DType::kFloat32);
  const DeviceArray bias(random.normals(columns), DType::kFloat32);
  const gpu::AddNormParams p{x.data(),         residual.data(), weight.as<float>(),
                             bias.as<float>(), y.data(),        rows,
                             columns,          1e-5f,           dtype};
  const double us = bench.time([&](cudaStream_t stream) { return gpu::add_norm(p, stream); });
  if (!bench.ok()) return;
  Work work;
  work.bytes = 3.0 * static_cast<double>(bytes) + 2.0 * columns * sizeof(float);
  char what[64];
  std::snprintf(what, sizeof(what), "AddNorm %d x %d", rows, columns);
  bench.print(what, gpu::dtype_name(dtype), us, work);
}

// A decoder's: RMSNorm of a 16-bit product added to the fp32 stream, which is written too.
void time_stream_norm(int rows, int columns, DType dtype, Bench& bench) {
  Random random(1);
  const size_t n = static_cast<size_t>(rows) * columns, narrow = n * gpu::dtype_bytes(dtype);
  const DeviceArray x(narrow), y(narrow), stream(n * sizeof(float));
  const DeviceArray weight(random.normals(columns), DType::kFloat32);
  const gpu::AddNormParams p{
      x.data(), stream.data(), weight.as<float>(), nullptr, y.data(), rows, columns, 1e-5f, dtype,
      true,     true,          stream.data()};
  const double us = bench.time([&](cudaStream_t s) { return gpu::add_norm(p, s); });
  if (!bench.ok()) return;
  Work work;
  work.bytes = 2.0 * static_cast<double>(narrow) + 2.0 * static_cast<double>(stream.size());
  char what[64];
  std::snprintf(what, sizeof(what), "AddNorm of a stream %d x %d", rows, columns);
  bench.print(what, gpu::dtype_name(dtype), us, work);
}

// The last `own` of the heads are values, which Rope copies and KeysValues keeps with as many keys.
struct DecoderShape {
  const char* name;
  int heads, own, head_dim, intermediate, layers;
  bool has_norm;
};
constexpr DecoderShape kDecoderShapes[] = {
    {"SmolLM2-135M", 9, 3, 64, 1536, 30, false},
    {"Llama-3-8B", 32, 8, 128, 14336, 32, false},
    {"Qwen3-8B", 32, 8, 128, 12288, 36, true},
};

void time_decoder_rows(const DecoderShape& s, int rows, DType dtype, Bench& bench) {
  Random random(1);
  const int turned = s.heads + s.own, width = (turned + s.own) * s.head_dim;
  const size_t n = static_cast<size_t>(rows) * width, element = gpu::dtype_bytes(dtype);
  const DeviceArray x(n * element), y(n * element);
  const DeviceArray positions(std::vector<int64_t>(rows, 1000));
  const DeviceArray frequencies(random.normals(s.head_dim / 2), DType::kFloat32);
  const DeviceArray weight(random.normals(turned * s.head_dim), DType::kFloat32);
  const gpu::RopeParams rope{x.data(),
                             positions.as<int64_t>(),
                             frequencies.as<float>(),
                             s.has_norm ? weight.as<float>() : nullptr,
                             y.data(),
                             rows,
                             width,
                             turned,
                             s.head_dim,
                             1e-6f,
                             dtype};
  char what[64];
  std::snprintf(what, sizeof(what), "Rope %s x %d", s.name, rows);
  Work work;
  work.bytes = 2.0 * static_cast<double>(x.size());
  double us = bench.time([&](cudaStream_t stream) { return gpu::rope(rope, stream); });
  if (!bench.ok()) return;
  bench.print(what, gpu::dtype_name(dtype), us, work);

  const size_t n_gated = static_cast<size_t>(rows) * s.intermediate;
  const DeviceArray gate_up(2 * n_gated * element), gated(n_gated * element);
  const gpu::SwiGluParams swiglu{gate_up.data(), gated.data(), rows, s.intermediate, dtype};
  us = bench.time([&](cudaStream_t stream) { return gpu::swiglu(swiglu, stream); });
  if (!bench.ok()) return;
  std::snprintf(what, sizeof(what), "SwiGlu %s x %d", s.name, rows);
  work.bytes = static_cast<double>(gate_up.size() + gated.size());
  bench.print(what, gpu::dtype_name(dtype), us, work);

  std::vector<std::unique_ptr<DeviceArray>> layers;
  std::vector<const void*> states;
  for (int layer = 0; layer < s.layers; ++layer) {
    layers.push_back(std::make_unique<DeviceArray>(x.size()));
    states.push_back(layers.back()->data());
  }
  const size_t kept = static_cast<size_t>(rows) * s.layers * s.own * s.head_dim;
  const DeviceArray key(kept * sizeof(float)), value(kept * sizeof(float));
  const gpu::KeysValuesParams keys_values{
      states.data(), key.as<float>(),      value.as<float>(),   s.layers, 1, rows, width, s.own,
      s.head_dim,    s.heads * s.head_dim, turned * s.head_dim, dtype};
  us = bench.time([&](cudaStream_t stream) { return gpu::keys_values(keys_values, stream); });
  if (!bench.ok()) return;
  std::snprintf(what, sizeof(what), "KeysValues %s x %d", s.name, rows);
  work.bytes = 2.0 * static_cast<double>(kept * (element + sizeof(float)));
  bench.print(what, gpu::dtype_name(dtype), us, work);
}

}  // namespace

bool run_bench() {
  Bench bench;
  measure_ceilings(bench);
  for (const int batch : {1, 8, 64}) {
    if (bench.ok()) time_head(batch, 128, 384, 2, kHalf, bench);
    if (bench.ok()) time_head(batch, 128, 4096, 12, kBrain, bench);
  }
  for (const int rows : {128, 1024, 8192, 131072}) {
    if (bench.ok()) time_norm(rows, 384, kHalf, bench);
  }
  if (bench.ok()) time_norm(8192, 4096, kBrain, bench);
  for (const int rows : {128, 8192}) {
    if (bench.ok()) time_stream_norm(rows, 4096, kHalf, bench);
    for (const DecoderShape& shape : kDecoderShapes) {
      if (bench.ok()) time_decoder_rows(shape, rows, kHalf, bench);
    }
  }
  for (const AttentionShape& shape : kAttentionShapes) {
    if (bench.ok()) time_attention(shape, bench);
  }
  if (!bench.ok()) bench.print_error();
  return bench.ok() && take_cuda_error() == cudaSuccess;
}

}  // namespace csrm_test
