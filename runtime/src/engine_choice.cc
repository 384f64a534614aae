// One function for each device; see engine_choice.h.
#include "engine_choice.h"

#include <utility>

#include "kernels/linear_i8.h"
#include "ort_cuda_engine.h"
#include "ort_engine.h"
#include "trt_engine.h"

namespace csrm {
namespace {

Status no_variant(const std::string& variant) {
  return {Code::kUnsupported,
          "the artifact has no " + variant + " variant; give variant = \"portable\""};
}

// The wished variant; without a wish the best that this CPU and engine run. int8 is chosen only
// where its products are faster than those of floats; it and half, whose cache is half the size, if
// their scores were found alike.
Result<LoadedEngine> load_on_cpu(const Artifact& artifact, const std::string& variant,
                                 const EngineOptions& options) {
  const bool is_int8_best = artifact.manifest.is_int8_alike && kernels::linear_i8_has_vnni();
  const struct {
    const char* name;
    const std::string& path;
    bool is_choice, has_operators;
  } candidates[] = {
      {"int8", artifact.int8_path, is_int8_best, true},
      {"half", artifact.half_path, artifact.manifest.is_half_alike, true},
      {"fused", artifact.fused_path, true, true},
      {"portable", artifact.portable_path, true, false},
  };
  if (variant == "cuda") {
    return Status{Code::kUnsupported,
                  "the cuda variant runs on a GPU only; give device = \"cuda\", or no variant"};
  }
  Status failed = no_variant(variant);
  for (const auto& candidate : candidates) {
    const bool is_wanted = variant.empty() ? candidate.is_choice : variant == candidate.name;
    if (!is_wanted || candidate.path.empty()) continue;
    Result<std::unique_ptr<Engine>> engine =
        load_ort_engine(candidate.path, artifact.manifest.model, candidate.has_operators, options);
    if (engine.ok()) return LoadedEngine{std::move(engine).value(), candidate.name, ""};
    failed = engine.status();
    // Without an explicit wish an engine that cannot run the operators still runs the reference;
    // ScorerInfo::variant tells which one it is.
    if (failed.code != Code::kEngineFailed) break;
  }
  return failed;
}

// The artifact's own graph for CUDA, or the portable one, which is the reference there.
Result<LoadedEngine> load_on_cuda(const Artifact& artifact, const std::string& variant,
                                  const EngineOptions& options) {
  if (!variant.empty() && variant != "cuda" && variant != "portable") {
    return Status{Code::kUnsupported,
                  "the " + variant +
                      " variant runs on the CPU only; give variant = \"cuda\" or "
                      "\"portable\", or device = \"cpu\""};
  }
  const bool has_operators = variant.empty() ? !artifact.cuda_path.empty() : variant == "cuda";
  if (has_operators && artifact.cuda_path.empty()) return no_variant(variant);
  Result<std::unique_ptr<Engine>> engine =
      load_ort_cuda_engine(has_operators ? artifact.cuda_path : artifact.portable_path,
                           artifact.manifest.model, has_operators, options);
  if (!engine.ok()) return engine.status();
  return LoadedEngine{std::move(engine).value(), has_operators ? "cuda" : "portable", ""};
}

// The variant of a TensorRT engine is its precision: "tensorrt-fp16".
Result<LoadedEngine> load_on_tensorrt(const Artifact& artifact, const std::string& variant) {
  const Result<std::string> support = find_trt_support();
  if (!support.ok()) return support.status();
  if (!variant.empty()) {
    return {Code::kUnsupported,
            "device \"tensorrt\" has no variant " + variant + "; give variant = \"\""};
  }
  Result<LoadedTrtEngine> loaded = load_trt_engine(artifact);
  if (!loaded.ok()) return loaded.status();
  return LoadedEngine{std::move(loaded.value().engine), "tensorrt-" + loaded.value().precision, ""};
}

// The GPU, if the artifact has a graph for it and the machine can run it; else the CPU, and why.
Result<LoadedEngine> load_on_best(const Artifact& artifact, const std::string& variant,
                                  const EngineOptions& options) {
  if (variant == "cuda") return load_on_cuda(artifact, variant, options);
  if (artifact.cuda_path.empty() || !variant.empty()) {
    return load_on_cpu(artifact, variant, options);
  }
  Result<LoadedEngine> loaded = load_on_cuda(artifact, variant, options);
  if (loaded.ok()) return loaded;
  const std::string note = loaded.status().message;
  loaded = load_on_cpu(artifact, variant, options);
  if (loaded.ok()) loaded.value().note = note;
  return loaded;
}

}  // namespace

const char* device_name(Device device) {
  switch (device) {
    case Device::kAuto:
      return "auto";
    case Device::kCpu:
      return "cpu";
    case Device::kCuda:
      return "cuda";
    case Device::kTensorRt:
      return "tensorrt";
  }
  return "auto";
}

Result<Device> parse_device(const std::string& name) {
  if (name.empty()) return Device::kAuto;
  for (const Device device : {Device::kAuto, Device::kCpu, Device::kCuda, Device::kTensorRt}) {
    if (name == device_name(device)) return device;
  }
  return {Code::kBadArgument,
          "device is unknown; give \"auto\", \"cpu\", \"cuda\" or \"tensorrt\""};
}

Status check_variant(const std::string& name) {
  for (const char* known : {"", "portable", "fused", "half", "int8", "cuda"}) {
    if (name == known) return Status::success();
  }
  return {
      Code::kBadArgument,
      "variant is unknown; give \"portable\", \"fused\", \"half\", \"int8\", \"cuda\" or \"\" (the "
      "best available)"};
}

Result<LoadedEngine> load_engine(const Artifact& artifact, const EngineWish& wish,
                                 const EngineOptions& options) {
  switch (wish.device) {
    case Device::kCpu:
      return load_on_cpu(artifact, wish.variant, options);
    case Device::kCuda:
      return load_on_cuda(artifact, wish.variant, options);
    case Device::kTensorRt:
      return load_on_tensorrt(artifact, wish.variant);
    case Device::kAuto:
      break;
  }
  return load_on_best(artifact, wish.variant, options);
}

}  // namespace csrm
