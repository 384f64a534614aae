// One function for each device; see engine_choice.h.
#include "engine_choice.h"

#include <utility>

#include "kernels/linear_i8.h"
#include "ort_engine.h"
#include "trt_engine.h"

namespace csrm {
namespace {

// The wished variant; without a wish the fastest that this CPU and engine run. int8 is chosen only
// where its products are faster than those of floats and its scores were found alike.
Result<LoadedEngine> load_on_cpu(const Artifact& artifact, const std::string& variant,
                                 const EngineOptions& options) {
  const bool is_int8_best = artifact.manifest.is_int8_alike && kernels::linear_i8_has_vnni();
  const struct {
    const char* name;
    const std::string& path;
    bool is_choice, has_operators;
  } candidates[] = {
      {"int8", artifact.int8_path, is_int8_best, true},
      {"fused", artifact.fused_path, true, true},
      {"portable", artifact.portable_path, true, false},
  };
  Status failed{Code::kUnsupported,
                "the artifact has no " + variant + " variant; give variant = \"portable\""};
  for (const auto& candidate : candidates) {
    const bool is_wanted = variant.empty() ? candidate.is_choice : variant == candidate.name;
    if (!is_wanted || candidate.path.empty()) continue;
    Result<std::unique_ptr<Engine>> engine =
        load_ort_engine(candidate.path, artifact.manifest.model, candidate.has_operators, options);
    if (engine.ok()) return LoadedEngine{std::move(engine).value(), candidate.name};
    failed = engine.status();
    // Without an explicit wish an engine that cannot run the operators still runs the reference;
    // ScorerInfo::variant tells which one it is.
    if (failed.code != Code::kEngineFailed) break;
  }
  return failed;
}

Result<LoadedEngine> load_on_cuda(const Artifact&, const std::string&, const EngineOptions&) {
  return {Code::kEngineUnavailable, "this build of csrm has no CUDA engine; give device = \"cpu\""};
}

// The variant of a TensorRT engine is its precision: "tensorrt-fp16".
Result<LoadedEngine> load_on_tensorrt(const Artifact& artifact, const std::string& variant) {
  if (!variant.empty()) {
    return {Code::kUnsupported,
            "device \"tensorrt\" has no variant " + variant + "; give variant = \"\""};
  }
  Result<LoadedTrtEngine> loaded = load_trt_engine(artifact);
  if (!loaded.ok()) return loaded.status();
  return LoadedEngine{std::move(loaded.value().engine), "tensorrt-" + loaded.value().precision};
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
  for (const char* known : {"", "portable", "fused", "int8", "cuda"}) {
    if (name == known) return Status::success();
  }
  return {
      Code::kBadArgument,
      "variant is unknown; give \"portable\", \"fused\", \"int8\", \"cuda\" or \"\" (the best)"};
}

Result<LoadedEngine> load_engine(const Artifact& artifact, const EngineWish& wish,
                                 const EngineOptions& options) {
  switch (wish.device) {
    case Device::kCuda:
      return load_on_cuda(artifact, wish.variant, options);
    case Device::kTensorRt:
      return load_on_tensorrt(artifact, wish.variant);
    case Device::kAuto:
    case Device::kCpu:
      break;
  }
  return load_on_cpu(artifact, wish.variant, options);
}

}  // namespace csrm
