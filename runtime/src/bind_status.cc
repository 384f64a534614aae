// Python exceptions for Status, and the status table for the test that compares the two languages.
#include "bind_status.h"

namespace py = pybind11;

namespace csrm {

void raise_status(const Status& status) {
  // Imported on use: csrm.errors belongs to the package that imports this module.
  const py::object error_class = py::module_::import("csrm.errors").attr(code_name(status.code));
  PyErr_SetObject(error_class.ptr(), error_class(py::str(status.message)).ptr());
  throw py::error_already_set();
}

void bind_status(py::module_& m) {
  py::list rows;
#define CSRM_STATUS_ROW(enumerator, number, cls, sentence) \
  rows.append(py::make_tuple(number, #cls, sentence));
  CSRM_STATUS_TABLE(CSRM_STATUS_ROW)
#undef CSRM_STATUS_ROW
  m.attr("STATUS_TABLE") = py::tuple(rows);
}

}  // namespace csrm
