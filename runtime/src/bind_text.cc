// `_core.Renderer`: the tokenizer and the renderer for Python, which training and the tests call.
// Not: scoring, which renders in C++ (scorer.cc). Takes str or UTF-8 bytes, gives int32 arrays;
// works without the GIL. Thread-safe.
#include "bind_text.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <map>
#include <string>
#include <utility>

#include "bind_status.h"
#include "render.h"
#include "tokenizer.h"

namespace py = pybind11;

namespace csrm {

std::string_view utf8_of(const py::object& text) {
  Py_ssize_t size = 0;
  if (PyUnicode_Check(text.ptr())) {
    const char* data = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
    if (data != nullptr) return {data, static_cast<size_t>(size)};
    if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) throw py::error_already_set();
    PyErr_Clear();
    raise_status({Code::kBadUtf8,
                  "the str holds a lone surrogate, which no UTF-8 can express; decode the original "
                  "bytes strictly, or with errors=\"replace\""});
  }
  if (!PyBytes_Check(text.ptr())) throw py::type_error("a text must be str or bytes");
  char* data = nullptr;
  if (PyBytes_AsStringAndSize(text.ptr(), &data, &size) != 0) throw py::error_already_set();
  return {data, static_cast<size_t>(size)};
}

namespace {

py::array_t<int32_t> to_array(const std::vector<int32_t>& ids) {
  return py::array_t<int32_t>(static_cast<py::ssize_t>(ids.size()), ids.data());
}

py::list to_list(const std::vector<Block>& blocks) {
  py::list list;
  for (const Block& block : blocks) list.append(py::make_tuple(to_array(block.ids), block.segment));
  return list;
}

class Renderer {
 public:
  Renderer(Tokenizer tokenizer, const Template& tmpl)
      : tokenizer_(std::move(tokenizer)), template_(tmpl) {}

  py::array_t<int32_t> encode(const py::object& text) const {
    const std::string_view utf8 = utf8_of(text);
    std::vector<int32_t> ids;
    run_without_gil([&] { return tokenizer_.encode(utf8, &ids); });
    return to_array(ids);
  }

  py::list rule(const py::object& name, const py::object& text) const {
    const std::string_view name_utf8 = utf8_of(name), text_utf8 = utf8_of(text);
    std::vector<Block> blocks;
    run_without_gil([&] {
      const Rule rule{std::string(name_utf8), std::string(text_utf8)};
      return render_rule(tokenizer_, template_, rule, 0, &blocks);
    });
    return to_list(blocks);
  }

  py::list turn(const py::object& role, const py::object& content, size_t index) const {
    const Role known_role = value_or_raise(role_from_name(utf8_of(role)));
    const std::string_view utf8 = utf8_of(content);
    std::vector<Block> blocks;
    run_without_gil([&] {
      const Turn turn{known_role, std::string(utf8)};
      return render_turn(tokenizer_, template_, turn, index, &blocks);
    });
    return to_list(blocks);
  }

  size_t vocab_size() const { return tokenizer_.vocab_size(); }

  std::optional<int32_t> id_of(const py::object& literal) const {
    return tokenizer_.id_of(utf8_of(literal));
  }

 private:
  Tokenizer tokenizer_;
  Template template_;
};

void read_roles(const std::map<std::string, int32_t>& roles, Template* tmpl) {
  constexpr size_t kRoles = std::size(Template{}.roles);
  if (roles.size() != kRoles) {
    raise_status({Code::kBadArgument, "template: roles has " + std::to_string(roles.size()) +
                                          " entries; it must name system, user, assistant, tool"});
  }
  for (const auto& [name, id] : roles) {
    tmpl->roles[static_cast<size_t>(value_or_raise(role_from_name(name)))] = id;
  }
}

Renderer make_renderer(const py::bytes& tokenizer_json, int32_t cls, int32_t sep, int32_t rule,
                       int32_t name_end, const std::map<std::string, int32_t>& roles,
                       int32_t max_block_tokens, int32_t n_turn_indices) {
  Tokenizer tokenizer = value_or_raise(Tokenizer::from_json(utf8_of(tokenizer_json)));
  Template tmpl{cls, sep, rule, name_end, {}, max_block_tokens, n_turn_indices};
  read_roles(roles, &tmpl);
  const Status status = check_template(tmpl, tokenizer.vocab_size());
  if (!status.ok()) raise_status(status);
  return {std::move(tokenizer), tmpl};
}

}  // namespace

void bind_text(py::module_& m) {
  py::class_<Renderer>(m, "Renderer",
                       "Text -> token ids and blocks, exactly as the scorer sees them.\n\n"
                       "The keyword arguments are the manifest's \"template\" without its id. "
                       "Texts are str or UTF-8 bytes. Thread-safe. Errors: BadArtifact and "
                       "Unsupported (tokenizer_json), BadArgument and UnknownRole (template), "
                       "BadUtf8 (texts).")
      .def(py::init(&make_renderer), py::arg("tokenizer_json"), py::kw_only(), py::arg("cls"),
           py::arg("sep"), py::arg("rule"), py::arg("name_end"), py::arg("roles"),
           py::arg("max_block_tokens"), py::arg("n_turn_indices"))
      .def("encode", &Renderer::encode, py::arg("text"),
           "Token ids of `text`, int32 [n]; never a control id. Errors: BadUtf8.")
      .def("rule", &Renderer::rule, py::arg("name"), py::arg("text"),
           "Blocks of one rule as [(ids int32 [n], segment 0), ...]. Errors: BadUtf8; EmptyConfig "
           "when name and text give no ids.")
      .def("turn", &Renderer::turn, py::arg("role"), py::arg("content"), py::arg("index"),
           "Blocks of turn `index` as [(ids int32 [n], segment), ...]. Errors: BadUtf8, "
           "UnknownRole.")
      .def("id_of", &Renderer::id_of, py::arg("literal"),
           "Id of the token that tokenizer_json spells `literal`, control tokens included, or "
           "None.")
      .def_property_readonly("vocab_size", &Renderer::vocab_size, "Every id is below this.");
}

}  // namespace csrm
