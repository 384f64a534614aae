// `_core.int8_peak`, which csrm bench divides by. Not: an operator of a model.
#include <pybind11/pybind11.h>

#include <optional>
#include <string>

#include "bind_status.h"
#include "kernels/int8_peak.h"

namespace py = pybind11;

namespace csrm {

void bind_peak(py::module_& m) {
  m.def(
      "int8_peak",
      [](const std::string& isa, int64_t levels, double seconds) {
        double peak = 0.0;
        run_without_gil([&]() -> Status {
          const std::optional<kernels::Isa> version = kernels::isa_named(isa);
          if (!version) {
            return {Code::kBadArgument, "int8_peak: isa is none of portable, avx2, avx512, amx"};
          }
          Result<double> result = kernels::int8_peak(*version, levels, seconds);
          if (result.ok()) peak = result.value();
          return result.status();
        });
        return peak;
      },
      py::arg("isa"), py::arg("levels"), py::arg("seconds"));
}

}  // namespace csrm
