// Declares the text part of `csrm._core`; see bind_text.cc.
#ifndef CSRM_SRC_BIND_TEXT_H_
#define CSRM_SRC_BIND_TEXT_H_

#include <pybind11/pybind11.h>

namespace csrm {

// Adds the class Renderer to `m`.
void bind_text(pybind11::module_& m);

}  // namespace csrm

#endif  // CSRM_SRC_BIND_TEXT_H_
