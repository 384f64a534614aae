// Attributes, errors, and the two functions that TensorRT looks up in libcsrm_tensorrt.so. Not: a
// registration at load time, which would need TensorRT's library: whoever loads the plugins
// (IPluginRegistry::loadLibrary, trtexec --dynamicPlugins) asks getCreators().
#include "trt_plugin.h"

#include <atomic>
#include <cstring>

namespace csrm::kernels::tensorrt {
namespace {

std::atomic<nvinfer1::ILoggerFinder*> logger_finder{nullptr};

Status bad_field(const char* plugin, const char* field, const std::string& problem) {
  return bad_argument(plugin, std::string("attribute ") + field + " " + problem);
}

Status read_attribute(const char* plugin, const nvinfer1::PluginField& field,
                      const Attribute& attribute) {
  using nvinfer1::PluginFieldType;
  if (field.data == nullptr || field.length != 1) {
    return bad_field(plugin, attribute.name, "must be one value");
  }
  if (attribute.integer != nullptr && field.type == PluginFieldType::kINT32) {
    std::memcpy(attribute.integer, field.data, sizeof(int32_t));
  } else if (attribute.integer != nullptr && field.type == PluginFieldType::kINT64) {
    int64_t wide = 0;
    std::memcpy(&wide, field.data, sizeof(wide));
    if (wide < INT32_MIN || wide > INT32_MAX) {
      return bad_field(plugin, attribute.name, "is " + std::to_string(wide) + ", beyond 32 bits");
    }
    *attribute.integer = static_cast<int32_t>(wide);
  } else if (attribute.real != nullptr && field.type == PluginFieldType::kFLOAT32) {
    std::memcpy(attribute.real, field.data, sizeof(float));
  } else {
    return bad_field(
        plugin, attribute.name,
        attribute.integer != nullptr ? "must be an integer" : "must be an fp32 number");
  }
  return Status::success();
}

}  // namespace

Status bad_argument(const char* plugin, const std::string& message) {
  return {Code::kBadArgument, std::string(plugin) + ": " + message};
}

Status read_attributes(const char* plugin, const nvinfer1::PluginFieldCollection* fields,
                       const std::vector<Attribute>& attributes) {
  if (fields == nullptr || (fields->nbFields > 0 && fields->fields == nullptr)) {
    return bad_argument(plugin, "no attributes; give all of them");
  }
  std::vector<bool> is_given(attributes.size(), false);
  for (int32_t i = 0; i < fields->nbFields; ++i) {
    const nvinfer1::PluginField& field = fields->fields[i];
    const std::string name = field.name != nullptr ? field.name : "";
    size_t at = 0;
    while (at < attributes.size() && name != attributes[at].name) ++at;
    if (at == attributes.size()) return bad_argument(plugin, "an attribute that is not known");
    if (is_given[at]) return bad_field(plugin, attributes[at].name, "is given twice");
    is_given[at] = true;
    if (Status bad = read_attribute(plugin, field, attributes[at]); !bad.ok()) return bad;
  }
  for (size_t at = 0; at < attributes.size(); ++at) {
    if (!is_given[at]) return bad_field(plugin, attributes[at].name, "is missing");
  }
  return Status::success();
}

std::vector<nvinfer1::PluginField> fields_of(const std::vector<Attribute>& attributes) {
  using nvinfer1::PluginFieldType;
  std::vector<nvinfer1::PluginField> fields;
  fields.reserve(attributes.size());
  for (const Attribute& attribute : attributes) {
    if (attribute.integer != nullptr) {
      fields.emplace_back(attribute.name, attribute.integer, PluginFieldType::kINT32, 1);
    } else {
      fields.emplace_back(attribute.name, attribute.real, PluginFieldType::kFLOAT32, 1);
    }
  }
  return fields;
}

void report(const char* plugin, const std::string& message) noexcept {
  nvinfer1::ILoggerFinder* const finder = logger_finder.load();
  if (finder == nullptr) return;
  try {
    nvinfer1::ILogger* const logger = finder->findLogger();
    if (logger == nullptr) return;
    // Statuses name the plugin already.
    const std::string prefix = std::string(plugin) + ": ";
    const std::string text = message.rfind(prefix, 0) == 0 ? message : prefix + message;
    logger->log(nvinfer1::ILogger::Severity::kERROR, text.c_str());
  } catch (const std::exception&) {
    return;  // no memory for a message
  }
}

Result<cuda::DType> dtype_of(const char* plugin, nvinfer1::DataType type) {
  switch (type) {
    case nvinfer1::DataType::kFLOAT:
      return cuda::DType::kFloat32;
    case nvinfer1::DataType::kHALF:
      return cuda::DType::kFloat16;
    case nvinfer1::DataType::kBF16:
      return cuda::DType::kBFloat16;
    default:
      return {Code::kUnsupported, std::string(plugin) + ": the type must be fp32, fp16 or bf16"};
  }
}

}  // namespace csrm::kernels::tensorrt

// The names and signatures are TensorRT's.
#define CSRM_TRT_EXPORT extern "C" __attribute__((visibility("default")))

CSRM_TRT_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder);
CSRM_TRT_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& n_creators);

void setLoggerFinder(nvinfer1::ILoggerFinder* finder) {
  csrm::kernels::tensorrt::logger_finder.store(finder);
}

nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& n_creators) {
  using namespace csrm::kernels::tensorrt;
  static nvinfer1::IPluginCreatorInterface* const creators[] = {
      reward_head_creator(), prefix_attention_creator(), add_norm_creator()};
  n_creators = static_cast<int32_t>(sizeof(creators) / sizeof(creators[0]));
  return creators;
}
