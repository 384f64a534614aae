// Which devices of csrm can be used here, and why the others cannot.
// Not: loading a model (csrm/scorer.h), which may still fail for a reason of its own.
#ifndef CSRM_DEVICES_H_
#define CSRM_DEVICES_H_

#include <string>
#include <vector>

#include "csrm/status.h"
#include "csrm/visibility.h"

namespace csrm {

struct DeviceReport {
  std::string device;  // "cpu", "cuda" or "tensorrt"
  bool is_available = false;
  std::string detail;  // what it is, or what is missing and what to install
};

// One report for each device. engine_library: as in ScorerOptions. Loads the libraries that each
// device needs, which stay loaded. Thread-safe but for the environment (csrm/scorer.h).
// Errors: LimitExceeded (out of memory).
CSRM_API Result<std::vector<DeviceReport>> list_devices(const std::string& engine_library) noexcept;

}  // namespace csrm

#endif  // CSRM_DEVICES_H_
