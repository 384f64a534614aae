// Status -> Python exception, for the pybind11 files of `csrm._core`.
// Not: the exception classes, which are Python's csrm.errors; they are found there by name.
#ifndef CSRM_SRC_BIND_STATUS_H_
#define CSRM_SRC_BIND_STATUS_H_

#include <pybind11/pybind11.h>

#include <utility>

#include "csrm/status.h"

namespace csrm {

// Throws csrm.errors.<code_name(status.code)>(status.message) as a pybind11 exception. `status`
// must be a failure and the caller must hold the GIL.
[[noreturn]] void raise_status(const Status& status);

// The value of `result`, or raise_status of its failure.
template <typename T>
T value_or_raise(Result<T> result) {
  if (!result.ok()) raise_status(result.status());
  return std::move(result).value();
}

// Runs `work`, which returns a Status, without the GIL, and raises its failure with it. The caller
// must hold the GIL.
template <typename Work>
void run_without_gil(const Work& work) {
  Status status;
  {
    const pybind11::gil_scoped_release release;
    status = work();
  }
  if (!status.ok()) raise_status(status);
}

// Adds STATUS_TABLE to `m`: one (number, class name, sentence) per status code, in table order.
void bind_status(pybind11::module_& m);

}  // namespace csrm

#endif  // CSRM_SRC_BIND_STATUS_H_
