// Declares the text part of `csrm._core`; see bind_text.cc and bind_chat.cc.
#ifndef CSRM_SRC_BIND_TEXT_H_
#define CSRM_SRC_BIND_TEXT_H_

#include <pybind11/pybind11.h>

#include <string_view>

namespace csrm {

// The UTF-8 of a str or bytes object, valid as long as the object lives. Raises BadUtf8 for a lone
// surrogate, TypeError for another type.
std::string_view utf8_of(const pybind11::object& text);

// Adds the class Renderer to `m`.
void bind_text(pybind11::module_& m);

// Adds the class ChatRenderer to `m`.
void bind_chat(pybind11::module_& m);

}  // namespace csrm

#endif  // CSRM_SRC_BIND_TEXT_H_
