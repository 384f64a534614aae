// Which of the artifact's engines, its bytes, the GPU and the library; see trt_engine.h.
#include "trt_engine.h"

#include <algorithm>
#include <fstream>
#include <mutex>
#include <utility>

#include "bound_engine.h"
#include "cuda_memory.h"
#include "cuda_support.h"
#include "sha256.h"
#include "trt_library.h"
#include "trt_session.h"

namespace csrm {
namespace {

constexpr char kAdvice[] = "; build one for it with csrm export --tensorrt";

struct TrtSupport {
  CudaDeviceInfo gpu;
  TrtLibrary library;
};

Result<TrtSupport> find_support() {
  TrtSupport support;
  std::string missing;
  const auto miss = [&](const std::string& problem) {
    missing += (missing.empty() ? "" : "; and ") + problem;
  };
  const Result<CudaDriver>& driver = cuda_driver();
  Result<CudaDeviceInfo> gpu = driver.ok() ? cuda_device(driver.value()) : driver.status();
  if (gpu.ok()) {
    support.gpu = std::move(gpu).value();
  } else if (gpu.status().code == Code::kEngineUnavailable) {
    miss(gpu.status().message);
  } else {
    return gpu.status();
  }
  Result<TrtLibrary> library = load_trt_library();
  if (library.ok()) {
    support.library = std::move(library).value();
  } else {
    miss(library.status().message);
  }
  if (missing.empty()) return support;
  return {Code::kEngineUnavailable,
          "device \"tensorrt\" cannot be had: " + missing + "; or give device = \"cpu\""};
}

Status check_architecture(const TrtEngineFile& file, const CudaDeviceInfo& gpu) {
  const std::string own = "sm" + std::to_string(gpu.major) + std::to_string(gpu.minor);
  if (file.architectures.empty()) return Status::success();  // the library decides
  std::string built_for;
  for (const std::string& name : file.architectures) {
    if (name == own || (name == "ampere+" && gpu.major >= 8)) return Status::success();
    built_for += (built_for.empty() ? "" : ", ") + name;
  }
  return {Code::kUnsupported,
          "the engine was built for " + built_for + " and this GPU is " + own + kAdvice};
}

// The bytes that are deserialised are those that the manifest's digest is of.
Result<std::string> read_engine(const Artifact& artifact, const std::string& name) {
  const ManifestFile* listed = nullptr;
  for (const ManifestFile& file : artifact.manifest.files) {
    if (file.name == name) listed = &file;
  }
  if (listed == nullptr) return {Code::kInternal, "a TensorRT engine that is not listed"};
  std::string bytes(listed->bytes, '\0');
  std::ifstream file(artifact.directory + "/" + name, std::ios::binary);
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file || file.peek() != std::ifstream::traits_type::eof()) {
    return {Code::kBadArtifact, "artifact file " + name + " changed while it was read; try again"};
  }
  Sha256 hash;
  hash.update(bytes.data(), bytes.size());
  if (to_hex(hash.finish()) == listed->sha256) return bytes;
  return {Code::kDigestMismatch, "artifact file " + name +
                                     " differs from its sha256 in manifest.json; copy the artifact "
                                     "again and distrust its source"};
}

// The GPU's memory, TensorRT's runtime and the engine of `bytes`, into `parts`.
Status start(const TrtLibrary& library, const CudaDeviceInfo& gpu, const std::string& bytes,
             TrtSessionParts* parts) {
  const std::lock_guard<std::mutex> lock(device_mutex());
  Result<std::shared_ptr<CudaMemory>> memory = CudaMemory::open(cuda_driver().value(), gpu.device);
  if (!memory.ok()) return memory.status();
  parts->stream = reinterpret_cast<cudaStream_t>(memory.value()->stream());
  parts->memory = std::move(memory).value();
  parts->runtime.reset(static_cast<nvinfer1::IRuntime*>(
      library.create_runtime(parts->logger.get(), library.interface_version)));
  if (parts->runtime == nullptr) {
    return {Code::kEngineFailed, "TensorRT cannot start: " + parts->logger->take_error()};
  }
  parts->engine.reset(parts->runtime->deserializeCudaEngine(bytes.data(), bytes.size()));
  if (parts->engine == nullptr) {
    return {Code::kEngineFailed,
            "TensorRT cannot read the engine: " + parts->logger->take_error() + kAdvice};
  }
  return Status::success();
}

// Errors: Unsupported.
Status check_file(const TrtEngineFile& file, const TrtSupport& support) {
  Status status = check_trt_package(file.package);
  if (status.ok()) {
    status = check_trt_version(file.version, file.is_version_compatible, support.library);
  }
  return status.ok() ? check_architecture(file, support.gpu) : status;
}

Result<std::unique_ptr<Engine>> open_engine(const Artifact& artifact, const TrtEngineFile& file,
                                            const TrtSupport& support) {
  if (Status bad = check_file(file, support); !bad.ok()) return bad;
  Result<std::string> bytes = read_engine(artifact, file.file);
  if (!bytes.ok()) return bytes.status();
  TrtSessionParts parts;
  parts.profiles = file.profiles;
  parts.shape = artifact.manifest.model;
  parts.version = support.library.package + " " + support.library.version;
  parts.logger = std::make_shared<TrtLogger>();
  if (Status bad = start(support.library, support.gpu, bytes.value(), &parts); !bad.ok())
    return bad;
  return make_trt_session(std::move(parts));
}

}  // namespace

Result<std::string> find_trt_support() {
  const Result<TrtSupport> support = find_support();
  if (!support.ok()) return support.status();
  const TrtLibrary& library = support.value().library;
  return describe(support.value().gpu) + "; " + library.package + " " + library.version;
}

Status check_trt_engine(const TrtEngineFile& file) {
  if (Status bad = check_trt_package(file.package); !bad.ok()) return bad;
  const Result<TrtSupport> support = find_support();
  return support.ok() ? check_file(file, support.value()) : support.status();
}

Result<LoadedTrtEngine> load_trt_engine(const Artifact& artifact) {
  const Result<TrtSupport> support = find_support();
  if (!support.ok()) return support.status();
  Status failed{
      Code::kUnsupported,
      "the artifact has no TensorRT engine; add one: csrm export --tensorrt ARTIFACT OUT"};
  bool is_first = true;
  for (const TrtEngineFile& file : artifact.manifest.trt_engines) {
    Result<std::unique_ptr<Engine>> engine = open_engine(artifact, file, support.value());
    if (engine.ok()) return LoadedTrtEngine{std::move(engine).value(), file.precision};
    if (std::exchange(is_first, false)) failed = engine.status();
  }
  return failed;
}

}  // namespace csrm
