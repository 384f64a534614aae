// Which device runs a model, and what is said where it cannot: names, missing drivers, the driver's
// functions against a stand-in (fake_cuda_driver.c), and the choice. Needs the stand-in's path on
// the command line, then an artifact folder and an engine library. Not: a GPU, though one may be
// there.
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "check.h"
#include "csrm/devices.h"
#include "csrm/scorer.h"
#include "cuda_memory.h"
#include "cuda_support.h"
#include "engine_choice.h"

namespace {

using csrm::Code;
using csrm::Device;

bool says(const csrm::Status& status, const char* words) {
  return status.message.find(words) != std::string::npos;
}

void test_device_names_are_read_back() {
  for (const Device device : {Device::kAuto, Device::kCpu, Device::kCuda, Device::kTensorRt}) {
    const auto parsed = csrm::parse_device(csrm::device_name(device));
    CHECK(parsed.ok() && parsed.value() == device);
  }
  CHECK(csrm::parse_device("").value() == Device::kAuto);
  for (const char* bad : {"gpu", "CUDA", "cuda:0", " cpu"}) {
    CHECK(csrm::parse_device(bad).status().code == Code::kBadArgument);
  }
  CHECK(csrm::check_variant("cuda").ok() && csrm::check_variant("").ok());
  CHECK(csrm::check_variant("fp16").code == Code::kBadArgument);
}

void test_cuda_driver_missing_says_what_to_install() {
  const auto missing = csrm::load_cuda_driver("no-such-driver.so.1");
  CHECK(missing.status().code == Code::kEngineUnavailable);
  CHECK(says(missing.status(), "no-such-driver.so.1") && says(missing.status(), "install"));
  // A library that is none of NVIDIA's.
  const auto other = csrm::load_cuda_driver("libm.so.6");
  CHECK(other.status().code == Code::kEngineUnavailable && says(other.status(), "cuInit"));
}

void test_cuda_driver_gpus_are_described(const csrm::CudaDriver& driver) {
  ::setenv("FAKE_CUDA_GPUS", "0", 1);
  const auto none = csrm::cuda_device(driver);
  CHECK(none.status().code == Code::kEngineUnavailable);
  CHECK(says(none.status(), "CUDA_VISIBLE_DEVICES"));
  ::setenv("FAKE_CUDA_GPUS", "2", 1);
  const auto first = csrm::cuda_device(driver);
  CHECK(first.ok());
  CHECK(csrm::describe(first.value()) ==
        "Fake GPU 7, compute capability 9.0, driver for CUDA 13.2");
}

void test_cuda_memory_moves_bytes_and_reports_errors(const csrm::CudaDriver& driver,
                                                     void (*fail)(int), int (*held)()) {
  const csrm::CudaDevice device = csrm::cuda_device(driver).value().device;
  {
    auto opened = csrm::CudaMemory::open(driver, device);
    CHECK(opened.ok() && opened.value()->device() == Device::kCuda);
    csrm::CudaMemory& memory = *opened.value();
    CHECK(std::string(memory.engine_name()) == "Cuda" && memory.stream() != nullptr);
    const auto a = memory.allocate(8), b = memory.allocate(8), host = memory.allocate_host(8);
    CHECK(a.ok() && b.ok() && host.ok());
    char back[8] = {};
    CHECK(memory.upload(a.value(), "seven..", 8).ok());
    CHECK(memory.copy(b.value(), a.value(), 8).ok());
    CHECK(memory.download(back, b.value(), 8).ok() && memory.wait().ok());
    CHECK(std::strcmp(back, "seven..") == 0);
    CHECK(memory.upload(nullptr, nullptr, 0).ok() && memory.copy(nullptr, nullptr, 0).ok());
    fail(0);
    const auto full = memory.allocate(8);
    CHECK(full.status().code == Code::kEngineFailed && says(full.status(), "out of memory"));
    CHECK(says(full.status(), "CUDA_ERROR_OUT_OF_MEMORY"));
    fail(0);
    CHECK(memory.wait().code == Code::kEngineFailed);
    memory.free(a.value());
    memory.free(b.value());
    memory.free_host(host.value());
  }
  CHECK(held() == 0);
  for (int n = 0; n < 3; ++n) {  // context, its use, stream
    fail(n);
    CHECK(csrm::CudaMemory::open(driver, device).status().code == Code::kEngineFailed);
    fail(-1);
    CHECK(held() == 0);
  }
}

void test_with_driver(const char* path) {
  const auto driver = csrm::load_cuda_driver(path);
  CHECK(driver.ok());
  if (!driver.ok()) return;
  void* library = ::dlopen(path, RTLD_NOW);
  const auto fail = reinterpret_cast<void (*)(int)>(::dlsym(library, "fake_cuda_fail"));
  const auto held = reinterpret_cast<int (*)()>(::dlsym(library, "fake_cuda_held"));
  test_cuda_driver_gpus_are_described(driver.value());
  test_cuda_memory_moves_bytes_and_reports_errors(driver.value(), fail, held);
}

csrm::Status load(const char* artifact, const char* library, const char* device,
                  const char* variant, std::string* loaded_on) {
  csrm::ScorerOptions options;
  options.engine_library = library;
  options.n_threads = 1;
  options.device = device;
  options.variant = variant;
  const auto scorer = csrm::Scorer::load(artifact, options);
  if (!scorer.ok()) return scorer.status();
  *loaded_on = scorer.value()->info().device;
  return csrm::Status::success();
}

void test_device_that_is_named_is_taken_or_an_error(const char* artifact, const char* library) {
  const auto reports = csrm::list_devices(library);
  CHECK(reports.ok() && reports.value().size() == 3);
  if (!reports.ok()) return;
  CHECK(reports.value()[0].device == "cpu" && reports.value()[0].is_available);
  for (const csrm::DeviceReport& report : reports.value()) {
    CHECK(!report.detail.empty());
    std::string loaded_on;
    const csrm::Status status =
        load(artifact, library, report.device.c_str(), "portable", &loaded_on);
    if (report.is_available && report.device == "tensorrt") {
      CHECK(status.code == Code::kUnsupported);  // no such variant there
    } else if (report.is_available) {
      CHECK(status.ok() && loaded_on == report.device);
    } else {
      CHECK(status.code == Code::kEngineUnavailable && status.message == report.detail);
      CHECK(says(status, ("\"" + report.device + "\"").c_str()));
    }
  }
  std::string loaded_on;
  CHECK(load(artifact, library, "cpu", "cuda", &loaded_on).code == Code::kUnsupported);
  CHECK(load(artifact, library, "cuda", "fused", &loaded_on).code == Code::kUnsupported);
  CHECK(load(artifact, library, "gpu", "", &loaded_on).code == Code::kBadArgument);
  CHECK(load(artifact, library, "auto", "portable", &loaded_on).ok() && loaded_on == "cpu");
}

void test_cuda_operators_missing_are_unavailable() {
  ::setenv("CSRM_CUDA_LIBRARY", "/no/such/libcsrm_cuda.so", 1);
  const auto missing = csrm::load_cuda_operators();
  CHECK(missing.status().code == Code::kEngineUnavailable);
  CHECK(says(missing.status(), "CSRM_BUILD_CUDA"));
  ::setenv("CSRM_CUDA_LIBRARY", "libm.so.6", 1);  // a library without them
  CHECK(says(csrm::load_cuda_operators().status(), "is not of csrm"));
  ::unsetenv("CSRM_CUDA_LIBRARY");
}

}  // namespace

int main(int argc, char** argv) {
  test_device_names_are_read_back();
  test_cuda_driver_missing_says_what_to_install();
  test_cuda_operators_missing_are_unavailable();
  if (argc > 1) test_with_driver(argv[1]);
  if (argc == 4) {
    test_device_that_is_named_is_taken_or_an_error(argv[2], argv[3]);
  } else {
    csrm_test::skip(1, csrm_test::kNeedsModel);
  }
  return csrm_test::summary();
}
