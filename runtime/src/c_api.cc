// The C API of csrm/csrm.h over csrm/scorer.h: checks pointers and sizes, converts structs, and
// keeps the last error of each thread. Not: any scoring of its own, nor the functions of a
// scheduler (c_api_scheduler.cc).
#include "c_api.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "csrm/json.h"

namespace {

using csrm::Code;
using csrm::Status;
using csrm::c_api::bad_argument;
using csrm::c_api::finish;
using csrm::c_api::init_struct;
using csrm::c_api::null_argument;

#define CSRM_CODES_AGREE(macro, name) \
  static_assert(macro == static_cast<int>(Code::name), "csrm.h and status.h disagree")
CSRM_CODES_AGREE(CSRM_OK, kOk);
CSRM_CODES_AGREE(CSRM_ERROR_BAD_UTF8, kBadUtf8);
CSRM_CODES_AGREE(CSRM_ERROR_EMPTY_CONVERSATION, kEmptyConversation);
CSRM_CODES_AGREE(CSRM_ERROR_EMPTY_CONFIG, kEmptyConfig);
CSRM_CODES_AGREE(CSRM_ERROR_UNKNOWN_ROLE, kUnknownRole);
CSRM_CODES_AGREE(CSRM_ERROR_LIMIT_EXCEEDED, kLimitExceeded);
CSRM_CODES_AGREE(CSRM_ERROR_BAD_CONFIG, kBadConfig);
CSRM_CODES_AGREE(CSRM_ERROR_BAD_CONVERSATION, kBadConversation);
CSRM_CODES_AGREE(CSRM_ERROR_BAD_ARTIFACT, kBadArtifact);
CSRM_CODES_AGREE(CSRM_ERROR_DIGEST_MISMATCH, kDigestMismatch);
CSRM_CODES_AGREE(CSRM_ERROR_UNSUPPORTED, kUnsupported);
CSRM_CODES_AGREE(CSRM_ERROR_ENGINE_UNAVAILABLE, kEngineUnavailable);
CSRM_CODES_AGREE(CSRM_ERROR_ENGINE_FAILED, kEngineFailed);
CSRM_CODES_AGREE(CSRM_ERROR_NON_FINITE, kNonFinite);
CSRM_CODES_AGREE(CSRM_ERROR_BAD_ARGUMENT, kBadArgument);
CSRM_CODES_AGREE(CSRM_ERROR_INTERNAL, kInternal);
CSRM_CODES_AGREE(CSRM_ERROR_OVERLOADED, kOverloaded);
CSRM_CODES_AGREE(CSRM_ERROR_DEADLINE_EXCEEDED, kDeadlineExceeded);
CSRM_CODES_AGREE(CSRM_ERROR_CANCELLED, kCancelled);
#undef CSRM_CODES_AGREE

thread_local std::string last_error;

std::string text_of(const char* zero_terminated) {
  return zero_terminated != nullptr ? zero_terminated : "";
}

// What the first header with each struct had.
constexpr size_t kOldestScorerOptions =
    CSRM_SIZE_THROUGH(csrm_scorer_options, max_conversation_tokens);
constexpr size_t kOldestScorerInfo = CSRM_SIZE_THROUGH(csrm_scorer_info, reserved);
constexpr size_t kOldestScoreOptions = CSRM_SIZE_THROUGH(csrm_score_options, explain);
constexpr size_t kOldestScoreResult = CSRM_SIZE_THROUGH(csrm_score_result, rule_capacity);

std::string_view view_of(const char* text, size_t n_bytes) {
  return n_bytes > 0 ? std::string_view(text, n_bytes) : std::string_view("");
}

csrm_scorer_options default_scorer_options() {
  const csrm::ScorerOptions defaults;
  const csrm::Limits limits;
  return {sizeof(csrm_scorer_options),
          nullptr,
          nullptr,
          nullptr,
          defaults.n_threads,
          defaults.allow_spinning ? 1 : 0,
          defaults.cache_tokens,
          defaults.batch_tokens,
          limits.max_text_bytes,
          limits.max_rules,
          limits.max_turns,
          limits.max_config_tokens,
          limits.max_conversation_tokens,
          nullptr};
}

csrm::ScorerOptions to_options(const csrm_scorer_options& given) {
  csrm::ScorerOptions options;
  options.engine_library = text_of(given.engine_library);
  options.variant = text_of(given.variant);
  options.device = text_of(given.device);
  options.tenant_salt = text_of(given.tenant_salt);
  options.n_threads = given.n_threads;
  options.allow_spinning = given.allow_spinning != 0;
  options.cache_tokens = given.cache_tokens;
  options.batch_tokens = given.batch_tokens;
  options.limits.max_text_bytes = given.max_text_bytes;
  options.limits.max_rules = given.max_rules;
  options.limits.max_turns = given.max_turns;
  options.limits.max_config_tokens = given.max_config_tokens;
  options.limits.max_conversation_tokens = given.max_conversation_tokens;
  return options;
}

void set_failed(csrm_score_result* result) {
  result->reward = std::numeric_limits<float>::quiet_NaN();
  result->compliance = std::numeric_limits<float>::quiet_NaN();
  result->verdict = CSRM_VERDICT_UNKNOWN;
  result->scored_tokens = 0;
  result->n_turns = 0;
  result->n_rules = 0;
}

Status create_scorer(const char* artifact_dir, const csrm_scorer_options* given,
                     csrm_scorer** scorer) {
  if (scorer == nullptr) return null_argument("scorer");
  *scorer = nullptr;
  if (artifact_dir == nullptr) return null_argument("artifact_dir");
  csrm::ScorerOptions options;
  if (given != nullptr) {
    csrm_scorer_options known = default_scorer_options();
    Status bad = csrm::c_api::read_struct(given, kOldestScorerOptions, "options", &known);
    if (!bad.ok()) return bad;
    options = to_options(known);
  }
  auto handle = std::make_unique<csrm_scorer>();
  auto loaded = csrm::Scorer::load(artifact_dir, options);
  if (!loaded.ok()) return loaded.status();
  handle->scorer = std::move(loaded).value();
  *scorer = handle.release();
  return Status::success();
}

Status read_info(const csrm_scorer* scorer, csrm_scorer_info* given) {
  if (scorer == nullptr) return null_argument("scorer");
  if (given == nullptr) return null_argument("info");
  Status bad = csrm::c_api::check_size(given, kOldestScorerInfo, "info");
  if (!bad.ok()) return bad;
  const csrm::ScorerInfo& info = scorer->scorer->info();
  csrm_scorer_info known{};
  known.name = info.name.c_str();
  known.variant = info.variant.c_str();
  known.backbone = info.backbone.c_str();
  known.artifact_digest = info.artifact_digest.c_str();
  known.engine_version = info.engine_version.c_str();
  known.threshold = info.threshold;
  known.calibration_a = info.calibration_a;
  known.calibration_b = info.calibration_b;
  known.max_positions = info.max_positions;
  known.n_threads = info.n_threads;
  known.device = info.device.c_str();
  csrm::c_api::write_struct(known, given);
  return Status::success();
}

Status score_into(const csrm_scorer* scorer, const csrm_config* config,
                  const csrm_conversation* conversation, const csrm_score_options* given,
                  csrm_score_result* result) {
  if (Status bad = csrm::c_api::prepare_result(result); !bad.ok()) return bad;
  if (scorer == nullptr) return null_argument("scorer");
  if (config == nullptr) return null_argument("config");
  if (conversation == nullptr) return null_argument("conversation");
  csrm::ScoreOptions options;
  if (Status bad = csrm::c_api::read_score_options(given, &options); !bad.ok()) return bad;
  const auto score = scorer->scorer->score(config->config, conversation->turns, options);
  if (!score.ok()) return score.status();
  csrm::c_api::copy_score(score.value(), result);
  return Status::success();
}

}  // namespace

namespace csrm::c_api {

Status bad_argument(const char* message) { return {Code::kBadArgument, message}; }

Status null_argument(const char* name) {
  return {Code::kBadArgument, std::string(name) + " is NULL; give a valid pointer"};
}

int remember(Status status) noexcept {
  if (!status.ok()) last_error.swap(status.message);
  return static_cast<int>(status.code);
}

Status read_score_options(const csrm_score_options* given, ScoreOptions* options) {
  if (given == nullptr) return Status::success();
  csrm_score_options known{};
  known.judged = CSRM_JUDGED_LAST;
  Status bad = read_struct(given, kOldestScoreOptions, "options", &known);
  if (!bad.ok()) return bad;
  options->judged = static_cast<Judged>(known.judged);
  options->explain = static_cast<Explain>(known.explain);
  options->reuse_turns = known.reuse_turns != 0;
  options->is_growing = known.is_growing != 0;
  return bad;
}

Status prepare_result(csrm_score_result* result) {
  if (result == nullptr) return null_argument("result");
  Status bad = check_size(result, kOldestScoreResult, "result");
  if (bad.ok()) set_failed(result);
  return bad;
}

void copy_score(const Score& score, csrm_score_result* result) {
  result->n_turns = score.turns.size();
  const size_t n_turns = result->turns ? std::min(result->turn_capacity, score.turns.size()) : 0;
  for (size_t i = 0; i < n_turns; ++i) {
    const TurnScore& turn = score.turns[i];
    result->turns[i] = {turn.turn, turn.reward, turn.compliance};
  }
  result->n_rules = score.rules.size();
  const size_t n_rules = result->rules ? std::min(result->rule_capacity, score.rules.size()) : 0;
  for (size_t i = 0; i < n_rules; ++i) {
    const RuleScore& rule = score.rules[i];
    result->rules[i] = {rule.rule, rule.reward, rule.compliance,
                        static_cast<int32_t>(rule.verdict)};
  }
  result->scored_tokens = score.scored_tokens;
  result->reward = score.reward;
  result->compliance = score.compliance;
  result->verdict = static_cast<int32_t>(score.verdict);
}

}  // namespace csrm::c_api

extern "C" {

uint32_t csrm_abi_version(void) { return CSRM_ABI_VERSION; }

const char* csrm_version(void) { return CSRM_VERSION; }

const char* csrm_last_error(void) { return last_error.c_str(); }

const char* csrm_code_name(int code) { return csrm::code_name(static_cast<Code>(code)); }

void csrm_scorer_options_init_sized(csrm_scorer_options* options, size_t struct_size) {
  init_struct(options, struct_size, kOldestScorerOptions, default_scorer_options());
}

// In parentheses, past the macro of this name; so too below. The caller's struct may be as short as
// the first header's.
void(csrm_scorer_options_init)(csrm_scorer_options* options) {
  csrm_scorer_options_init_sized(options, kOldestScorerOptions);
}

int csrm_scorer_create(const char* artifact_dir, const csrm_scorer_options* options,
                       csrm_scorer** scorer) {
  return finish([&] { return create_scorer(artifact_dir, options, scorer); });
}

void csrm_scorer_destroy(csrm_scorer* scorer) { delete scorer; }

void csrm_scorer_info_init_sized(csrm_scorer_info* info, size_t struct_size) {
  init_struct(info, struct_size, kOldestScorerInfo, csrm_scorer_info{});
}

void(csrm_scorer_info_init)(csrm_scorer_info* info) {
  csrm_scorer_info_init_sized(info, kOldestScorerInfo);
}

int csrm_scorer_get_info(const csrm_scorer* scorer, csrm_scorer_info* info) {
  return finish([&] { return read_info(scorer, info); });
}

int csrm_config_create(double threshold, csrm_config** config) {
  return finish([&] {
    if (config == nullptr) return null_argument("config");
    *config = nullptr;
    if (!(threshold >= 0.0 && threshold <= 1.0)) {
      return bad_argument("threshold is outside [0, 1]; give a probability");
    }
    *config = new csrm_config{{{}, threshold}};
    return Status::success();
  });
}

int csrm_config_parse_json(const char* json, size_t json_bytes, csrm_config** config) {
  return finish([&] {
    if (config == nullptr) return null_argument("config");
    *config = nullptr;
    if (json == nullptr && json_bytes > 0) return null_argument("json");
    auto parsed = csrm::parse_config_json(view_of(json, json_bytes));
    if (!parsed.ok()) return parsed.status();
    *config = new csrm_config{std::move(parsed).value()};
    return Status::success();
  });
}

int csrm_config_add_rule(csrm_config* config, const char* name, size_t name_bytes, const char* text,
                         size_t text_bytes) {
  return finish([&] {
    if (config == nullptr) return null_argument("config");
    if (name == nullptr && name_bytes > 0) return null_argument("name");
    if (text == nullptr && text_bytes > 0) return null_argument("text");
    csrm::Rule rule;
    if (name_bytes > 0) rule.name.assign(name, name_bytes);
    if (text_bytes > 0) rule.text.assign(text, text_bytes);
    config->config.rules.push_back(std::move(rule));
    return Status::success();
  });
}

void csrm_config_destroy(csrm_config* config) { delete config; }

int csrm_conversation_create(csrm_conversation** conversation) {
  return finish([&] {
    if (conversation == nullptr) return null_argument("conversation");
    *conversation = nullptr;
    *conversation = new csrm_conversation;
    return Status::success();
  });
}

int csrm_conversation_parse_json(const char* json, size_t json_bytes,
                                 csrm_conversation** conversation) {
  return finish([&] {
    if (conversation == nullptr) return null_argument("conversation");
    *conversation = nullptr;
    if (json == nullptr && json_bytes > 0) return null_argument("json");
    auto parsed = csrm::parse_conversation_json(view_of(json, json_bytes));
    if (!parsed.ok()) return parsed.status();
    *conversation = new csrm_conversation{std::move(parsed).value()};
    return Status::success();
  });
}

int csrm_conversation_add_turn(csrm_conversation* conversation, int role, const char* content,
                               size_t content_bytes) {
  return finish([&] {
    if (conversation == nullptr) return null_argument("conversation");
    if (content == nullptr && content_bytes > 0) return null_argument("content");
    if (role < CSRM_ROLE_SYSTEM || role > CSRM_ROLE_TOOL) {
      return Status{Code::kUnknownRole,
                    "role is " + std::to_string(role) + "; give one of CSRM_ROLE_* (0 to 3)"};
    }
    csrm::Turn turn{static_cast<csrm::Role>(role), {}};
    if (content_bytes > 0) turn.content.assign(content, content_bytes);
    conversation->turns.push_back(std::move(turn));
    return Status::success();
  });
}

void csrm_conversation_destroy(csrm_conversation* conversation) { delete conversation; }

void csrm_score_options_init_sized(csrm_score_options* options, size_t struct_size) {
  csrm_score_options defaults{};
  defaults.judged = CSRM_JUDGED_LAST;
  init_struct(options, struct_size, kOldestScoreOptions, defaults);
}

void(csrm_score_options_init)(csrm_score_options* options) {
  csrm_score_options_init_sized(options, kOldestScoreOptions);
}

void csrm_score_result_init_sized(csrm_score_result* result, size_t struct_size) {
  csrm_score_result failed{};
  set_failed(&failed);
  init_struct(result, struct_size, kOldestScoreResult, failed);
}

void(csrm_score_result_init)(csrm_score_result* result) {
  csrm_score_result_init_sized(result, kOldestScoreResult);
}

int csrm_score(const csrm_scorer* scorer, const csrm_config* config,
               const csrm_conversation* conversation, const csrm_score_options* options,
               csrm_score_result* result) {
  return finish([&] { return score_into(scorer, config, conversation, options, result); });
}

}  // extern "C"
