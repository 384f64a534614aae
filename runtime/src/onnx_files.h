// The files an ONNX model refers to: names of external weights, so that artifact.cc can refuse a
// model that would make the engine open a file the manifest does not list.
// Not: an ONNX parser. It walks the protobuf fields that can hold a tensor and skips all others.
#ifndef CSRM_SRC_ONNX_FILES_H_
#define CSRM_SRC_ONNX_FILES_H_

#include <string>
#include <string_view>
#include <vector>

#include "csrm/status.h"

namespace csrm {

// The location of every tensor stored outside the model whose bytes are `onnx`, without repeats.
// Errors: BadArtifact (not protobuf, or nested deeper than any real model).
Result<std::vector<std::string>> external_files(std::string_view onnx);

}  // namespace csrm

#endif  // CSRM_SRC_ONNX_FILES_H_
