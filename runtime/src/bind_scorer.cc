// `_core.Scorer`: the C++ Scorer for Python. Strings in, plain tuples out; csrm.scorer makes them
// into the public classes. Not: checks of Python types beyond what conversion needs.
// The GIL is released while the engine works, so Python threads score in parallel.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bind_score.h"
#include "bind_status.h"
#include "csrm/devices.h"
#include "csrm/scorer.h"
#include "csrm/stream.h"
#include "render.h"

namespace py = pybind11;

namespace csrm {
namespace {

// The bytes of `text`; lone surrogates pass through, as bytes the tokenizer refuses (BadUtf8).
std::string bytes_of(const py::handle& text) {
  if (!PyUnicode_Check(text.ptr())) throw py::type_error("a text must be a str");
  const auto bytes = py::reinterpret_steal<py::bytes>(
      PyUnicode_AsEncodedString(text.ptr(), "utf-8", "surrogatepass"));
  if (!bytes) throw py::error_already_set();
  return bytes;
}

// The bytes of a path, by Python's own rule for file names.
std::string path_of(const py::str& path) {
  const auto bytes = py::reinterpret_steal<py::bytes>(PyUnicode_EncodeFSDefault(path.ptr()));
  if (!bytes) throw py::error_already_set();
  return bytes;
}

py::sequence pair_of(const py::handle& item) {
  if (!py::isinstance<py::sequence>(item) || py::len(item) != 2) {
    throw py::type_error("a rule or a turn must be a pair of str");
  }
  return py::reinterpret_borrow<py::sequence>(item);
}

}  // namespace

Result<Conversation> conversation_of(const py::handle& turns) {
  Conversation conversation;
  for (const py::handle& item : turns) {
    const py::sequence pair = pair_of(item);
    Result<Role> role = role_from_name(bytes_of(pair[0]));
    if (!role.ok()) return role.status();
    conversation.push_back({role.value(), bytes_of(pair[1])});
  }
  return conversation;
}

Config config_of(const py::list& rules, double threshold) {
  Config config;
  config.threshold = threshold;
  for (const py::handle& item : rules) {
    const py::sequence pair = pair_of(item);
    config.rules.push_back({bytes_of(pair[0]), bytes_of(pair[1])});
  }
  return config;
}

Explain explain_of(const py::object& value) {
  if (py::isinstance<py::bool_>(value)) {
    return value.cast<bool>() ? Explain::kExact : Explain::kNone;
  }
  if (!py::isinstance<py::str>(value) || value.cast<std::string>() != "fast") {
    raise_status({Code::kBadArgument, "explain is unknown; give False, True or \"fast\""});
  }
  return Explain::kFast;
}

Judged judged_of(const std::string& name) {
  if (name == "last") return Judged::kLast;
  if (name != "assistant") {
    raise_status({Code::kBadArgument, "judged is unknown; give \"last\" or \"assistant\""});
  }
  return Judged::kAssistant;
}

namespace {

Limits limits_of(const std::map<std::string, size_t>& values) {
  Limits limits;
  const std::map<std::string, size_t Limits::*> fields = {
      {"max_text_bytes", &Limits::max_text_bytes},
      {"max_rules", &Limits::max_rules},
      {"max_turns", &Limits::max_turns},
      {"max_config_tokens", &Limits::max_config_tokens},
      {"max_conversation_tokens", &Limits::max_conversation_tokens},
      {"max_batch", &Limits::max_batch}};
  for (const auto& [name, value] : values) {
    const auto field = fields.find(name);
    if (field == fields.end()) {
      raise_status({Code::kBadArgument, "limits has a name that csrm::Limits has not"});
    }
    limits.*(field->second) = value;
  }
  return limits;
}

const char* verdict_name(Verdict verdict) {
  switch (verdict) {
    case Verdict::kCompliant:
      return "compliant";
    case Verdict::kViolation:
      return "violation";
    case Verdict::kUnknown:
      break;
  }
  return "unknown";
}

}  // namespace

py::tuple error_tuple(const Status& status) {
  return py::make_tuple("error", code_name(status.code), status.message);
}

py::tuple score_tuple(const Score& score) {
  py::list turns, rules;
  for (const TurnScore& turn : score.turns) {
    turns.append(py::make_tuple(turn.turn, turn.reward, turn.compliance));
  }
  for (const RuleScore& rule : score.rules) {
    rules.append(
        py::make_tuple(rule.rule, rule.reward, rule.compliance, verdict_name(rule.verdict)));
  }
  return py::make_tuple(score.reward, score.compliance, verdict_name(score.verdict), turns, rules,
                        score.scored_tokens);
}

namespace {

std::shared_ptr<Scorer> make_scorer(const py::str& artifact_dir, const py::str& engine_library,
                                    int n_threads, size_t cache_tokens, size_t batch_tokens,
                                    const std::string& variant, const py::str& tenant_salt,
                                    bool allow_spinning, const std::string& device,
                                    const std::map<std::string, size_t>& limits) {
  ScorerOptions options;
  options.engine_library = path_of(engine_library);
  options.n_threads = n_threads;
  options.cache_tokens = cache_tokens;
  options.batch_tokens = batch_tokens;
  options.variant = variant;
  options.tenant_salt = bytes_of(tenant_salt);
  options.allow_spinning = allow_spinning;
  options.device = device;
  options.limits = limits_of(limits);
  const std::string folder = path_of(artifact_dir);
  auto loaded = [&] {
    const py::gil_scoped_release release;
    return Scorer::load(folder, options);
  }();
  return value_or_raise(std::move(loaded));
}

py::list score_batch(const Scorer& scorer, const py::list& rules, double threshold,
                     const py::list& conversations, const std::string& judged,
                     const py::object& explain, bool reuse_turns) {
  const Config config = config_of(rules, threshold);
  const ScoreOptions options{judged_of(judged), explain_of(explain), reuse_turns};
  py::list answers;
  std::vector<Conversation> valid;
  std::vector<size_t> places;  // of each valid conversation in `answers`
  for (const py::handle& item : conversations) {
    Result<Conversation> conversation = conversation_of(item);
    if (conversation.ok()) {
      places.push_back(answers.size());
      valid.push_back(std::move(conversation).value());
      answers.append(py::none());
    } else {
      answers.append(error_tuple(conversation.status()));
    }
  }
  auto scored = [&] {
    const py::gil_scoped_release release;
    return scorer.score_batch(config, valid, options);
  }();
  if (!scored.ok()) raise_status(scored.status());
  for (size_t i = 0; i < places.size(); ++i) {
    const Result<Score>& score = scored.value()[i];
    answers[places[i]] = score.ok() ? score_tuple(score.value()) : error_tuple(score.status());
  }
  return answers;
}

py::dict info_dict(const Scorer& scorer) {
  const ScorerInfo& info = scorer.info();
  py::dict dict;
  dict["name"] = info.name;
  dict["variant"] = info.variant;
  dict["device"] = info.device;
  dict["device_note"] = info.device_note;
  dict["kernels"] = info.kernels;
  dict["backbone"] = info.backbone;
  dict["artifact_digest"] = info.artifact_digest;
  dict["engine_version"] = info.engine_version;
  dict["n_threads"] = info.n_threads;
  dict["threshold"] = info.threshold;
  dict["calibration_a"] = info.calibration_a;
  dict["calibration_b"] = info.calibration_b;
  dict["layers"] = info.layers;
  dict["kv_heads"] = info.kv_heads;
  dict["head_dim"] = info.head_dim;
  dict["vocab_size"] = info.vocab_size;
  dict["max_block_tokens"] = info.max_block_tokens;
  dict["max_positions"] = info.max_positions;
  return dict;
}

py::dict cache_dict(const Scorer& scorer) {
  const CacheStats stats = scorer.cache_stats();
  py::dict dict;
  dict["n_hits"] = stats.n_hits;
  dict["n_misses"] = stats.n_misses;
  dict["n_evictions"] = stats.n_evictions;
  dict["n_entries"] = stats.n_entries;
  dict["n_tokens"] = stats.n_tokens;
  dict["max_tokens"] = stats.max_tokens;
  return dict;
}

std::unique_ptr<ScoreStream> make_stream(const Scorer& scorer, const py::list& rules,
                                         double threshold, const py::list& turns,
                                         const std::string& role, size_t every_tokens,
                                         bool sentence_ends, bool every_append) {
  Conversation conversation = value_or_raise(conversation_of(turns));
  const StreamOptions options{value_or_raise(role_from_name(role)), every_tokens, sentence_ends,
                              every_append};
  return std::make_unique<ScoreStream>(&scorer, config_of(rules, threshold),
                                       std::move(conversation), options);
}

py::object append_text(ScoreStream& stream, const py::str& text) {
  const std::string bytes = bytes_of(text);
  auto scored = [&] {
    const py::gil_scoped_release release;
    return stream.append(bytes);
  }();
  const std::optional<Score> score = value_or_raise(std::move(scored));
  if (!score.has_value()) return py::none();
  return score_tuple(*score);
}

py::tuple finish_stream(ScoreStream& stream) {
  auto scored = [&] {
    const py::gil_scoped_release release;
    return stream.finish();
  }();
  return score_tuple(value_or_raise(std::move(scored)));
}

void check_integrity(const Scorer& scorer) {
  const Status status = [&] {
    const py::gil_scoped_release release;
    return scorer.check_integrity();
  }();
  if (!status.ok()) raise_status(status);
}

py::list device_list(const py::str& engine_library) {
  const std::string path = path_of(engine_library);
  auto reports = [&] {
    const py::gil_scoped_release release;
    return list_devices(path);
  }();
  py::list found;
  for (const DeviceReport& report : value_or_raise(std::move(reports))) {
    found.append(py::make_tuple(report.device, report.is_available, report.detail));
  }
  return found;
}

}  // namespace

// Adds the classes Scorer and ScoreStream to `m`; see _core.pyi for the Python signatures.
void bind_scorer(py::module_& m) {
  m.def("devices", &device_list, py::arg("engine_library"));
  py::class_<Scorer, std::shared_ptr<Scorer>>(m, "Scorer")
      .def(py::init(&make_scorer), py::arg("artifact_dir"), py::kw_only(),
           py::arg("engine_library"), py::arg("n_threads"), py::arg("cache_tokens"),
           py::arg("batch_tokens"), py::arg("variant"), py::arg("tenant_salt"),
           py::arg("allow_spinning"), py::arg("device") = "cpu", py::arg("limits"))
      .def("score_batch", &score_batch, py::arg("rules"), py::arg("threshold"),
           py::arg("conversations"), py::arg("judged"), py::arg("explain"),
           py::arg("reuse_turns") = false)
      .def("info", &info_dict)
      .def("cache_stats", &cache_dict)
      .def("clear_cache", &Scorer::clear_cache, py::call_guard<py::gil_scoped_release>())
      .def("check_integrity", &check_integrity);
  py::class_<ScoreStream>(m, "ScoreStream")
      .def(py::init(&make_stream), py::keep_alive<1, 2>(), py::arg("scorer"), py::arg("rules"),
           py::arg("threshold"), py::arg("turns"), py::kw_only(), py::arg("role"),
           py::arg("every_tokens"), py::arg("sentence_ends"), py::arg("every_append"))
      .def("append", &append_text, py::arg("text"))
      .def("finish", &finish_stream)
      .def("verdict", [](const ScoreStream& stream) { return verdict_name(stream.verdict()); });
}

}  // namespace csrm
