// The Python extension `csrm._core`: one bind_* function per topic, each in its own file.
#include <pybind11/pybind11.h>

#include "bind_status.h"
#include "bind_text.h"

namespace csrm {
void bind_peak(pybind11::module_& m);       // bind_peak.cc
void bind_scheduler(pybind11::module_& m);  // bind_scheduler.cc
void bind_scorer(pybind11::module_& m);     // bind_scorer.cc
void bind_tensorrt(pybind11::module_& m);   // bind_tensorrt.cc
}  // namespace csrm

PYBIND11_MODULE(_core, m) {
  m.doc() = "Native part of csrm; use the package `csrm`, not this module.";
  csrm::bind_status(m);
  csrm::bind_text(m);
  csrm::bind_chat(m);
  csrm::bind_scorer(m);
  csrm::bind_scheduler(m);
  csrm::bind_tensorrt(m);
  csrm::bind_peak(m);
}
