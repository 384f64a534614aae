// Field numbers are those of onnx.proto (IR version 13 and before).
#include "onnx_files.h"

#include <algorithm>
#include <cstdint>

namespace csrm {
namespace {

constexpr int kMaxDepth = 100;  // protobuf's own limit

enum class Message {
  kModel,
  kGraph,
  kNode,
  kAttribute,
  kTensor,
  kSparse,
  kFunction,
  kTraining,
  kEntry,
};

struct Edge {
  Message parent;
  uint64_t field;
  Message child;
};

// Every path from a model to a tensor's external_data.
constexpr Edge kEdges[] = {
    {Message::kModel, 7, Message::kGraph},         {Message::kModel, 20, Message::kTraining},
    {Message::kModel, 25, Message::kFunction},     {Message::kTraining, 1, Message::kGraph},
    {Message::kTraining, 2, Message::kGraph},      {Message::kFunction, 7, Message::kNode},
    {Message::kFunction, 11, Message::kAttribute}, {Message::kGraph, 1, Message::kNode},
    {Message::kGraph, 5, Message::kTensor},        {Message::kGraph, 15, Message::kSparse},
    {Message::kNode, 5, Message::kAttribute},      {Message::kAttribute, 5, Message::kTensor},
    {Message::kAttribute, 6, Message::kGraph},     {Message::kAttribute, 10, Message::kTensor},
    {Message::kAttribute, 11, Message::kGraph},    {Message::kAttribute, 22, Message::kSparse},
    {Message::kAttribute, 23, Message::kSparse},   {Message::kSparse, 1, Message::kTensor},
    {Message::kSparse, 2, Message::kTensor},       {Message::kTensor, 13, Message::kEntry},
};

// Takes a base-128 integer from the front of `data`; false if there is none.
bool take_varint(std::string_view* data, uint64_t* value) {
  *value = 0;
  for (size_t i = 0; i < data->size() && i < 10; ++i) {
    const auto byte = static_cast<unsigned char>((*data)[i]);
    *value |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
    if ((byte & 0x80) == 0) {
      data->remove_prefix(i + 1);
      return true;
    }
  }
  return false;
}

// Takes one field; `body` is its content if it is length-delimited, else empty. False if malformed.
bool take_field(std::string_view* data, uint64_t* field, std::string_view* body, bool* has_body) {
  uint64_t tag = 0, size = 0;
  if (!take_varint(data, &tag)) return false;
  *field = tag >> 3;
  *has_body = (tag & 7) == 2;
  switch (tag & 7) {
    case 0:
      return take_varint(data, &size);
    case 1:
      size = 8;
      break;
    case 2:
      if (!take_varint(data, &size)) return false;
      break;
    case 5:
      size = 4;
      break;
    default:
      return false;
  }
  if (size > data->size()) return false;
  *body = data->substr(0, size);
  data->remove_prefix(size);
  return true;
}

bool walk_entry(std::string_view data, std::vector<std::string>* files) {
  std::string_view key, value;
  while (!data.empty()) {
    uint64_t field = 0;
    std::string_view body;
    bool has_body = false;
    if (!take_field(&data, &field, &body, &has_body)) return false;
    if (has_body && field == 1) key = body;
    if (has_body && field == 2) value = body;
  }
  if (key == "location" && std::find(files->begin(), files->end(), value) == files->end()) {
    files->emplace_back(value);
  }
  return true;
}

bool walk(Message message, std::string_view data, int depth, std::vector<std::string>* files) {
  if (message == Message::kEntry) return walk_entry(data, files);
  if (depth > kMaxDepth) return false;
  while (!data.empty()) {
    uint64_t field = 0;
    std::string_view body;
    bool has_body = false;
    if (!take_field(&data, &field, &body, &has_body)) return false;
    if (!has_body) continue;
    for (const Edge& edge : kEdges) {
      if (edge.parent != message || edge.field != field) continue;
      if (!walk(edge.child, body, depth + 1, files)) return false;
    }
  }
  return true;
}

}  // namespace

Result<std::vector<std::string>> external_files(std::string_view onnx) {
  std::vector<std::string> files;
  if (!walk(Message::kModel, onnx, 0, &files)) {
    return {Code::kBadArtifact, "a model file is not an ONNX model; export the artifact again"};
  }
  return files;
}

}  // namespace csrm
