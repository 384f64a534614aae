// The TensorRT part of `csrm._core`: which of an artifact's engines can run here.
// Not: running one (csrm.Scorer with device = "tensorrt").
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bind_status.h"
#include "manifest.h"
#include "trt_engine.h"

namespace py = pybind11;

namespace csrm {

// For each engine of a manifest.json its file, package, version, precision and architectures, and
// what speaks against running it here ("" if nothing does). Reads no engine.
py::list tensorrt_engines(const py::bytes& manifest_json) {
  const std::string text = manifest_json;
  const Manifest manifest = value_or_raise(parse_manifest(text));
  py::list found;
  for (const TrtEngineFile& file : manifest.trt_engines) {
    const Status status = [&] {
      const py::gil_scoped_release release;
      return check_trt_engine(file);
    }();
    found.append(py::make_tuple(file.file, file.package, file.version, file.precision,
                                py::tuple(py::cast(file.architectures)), status.message));
  }
  return found;
}

void bind_tensorrt(py::module_& m) {
  m.def("tensorrt_engines", &tensorrt_engines, py::arg("manifest_json"));
}

}  // namespace csrm
