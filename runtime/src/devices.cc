// Asks what each device needs (cuda_support.h); see csrm/devices.h.
#include "csrm/devices.h"

#include <utility>

#include "cuda_support.h"
#include "engine_choice.h"
#include "engine_library.h"
#include "guarded.h"
#include "kernels/isa.h"
#include "trt_engine.h"

namespace csrm {
namespace {

DeviceReport failed(Device device, const Status& status) {
  return {device_name(device), false, status.message};
}

DeviceReport report_cpu(const std::string& engine_library) {
  const Result<EngineLibrary> library = load_engine_library(engine_library);
  if (!library.ok()) return failed(Device::kCpu, library.status());
  return {device_name(Device::kCpu), true,
          "ONNX Runtime " + library.value().version + ", kernels " + kernels::chosen_isa()};
}

DeviceReport report_cuda(const std::string& engine_library) {
  const Result<CudaSupport> support = find_cuda_support(engine_library);
  if (!support.ok()) return failed(Device::kCuda, support.status());
  const Result<CudaOperators> operators = load_cuda_operators();
  const std::string graphs = operators.ok()
                                 ? "csrm's operators for " + operators.value().architectures
                                 : "portable graphs only: " + operators.status().message;
  return {device_name(Device::kCuda), true,
          describe(support.value().gpu) + "; ONNX Runtime " + support.value().library.version +
              "; " + graphs};
}

DeviceReport report_tensorrt() {
  const Result<std::string> support = find_trt_support();
  if (!support.ok()) return failed(Device::kTensorRt, support.status());
  return {device_name(Device::kTensorRt), true, support.value()};
}

}  // namespace

Result<std::vector<DeviceReport>> list_devices(const std::string& engine_library) noexcept {
  return guarded<Result<std::vector<DeviceReport>>>([&] {
    std::vector<DeviceReport> reports;
    reports.push_back(report_cpu(engine_library));
    reports.push_back(report_cuda(engine_library));
    reports.push_back(report_tensorrt());
    return Result<std::vector<DeviceReport>>(std::move(reports));
  });
}

}  // namespace csrm
