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
#include <utility>

namespace {

using csrm::Code;
using csrm::Status;
using csrm::c_api::bad_argument;
using csrm::c_api::check_struct;
using csrm::c_api::finish;
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

csrm::ScorerOptions to_options(const csrm_scorer_options& given) {
  csrm::ScorerOptions options;
  options.engine_library = text_of(given.engine_library);
  options.variant = text_of(given.variant);
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

// Of the first header, which ended with `explain`.
constexpr size_t kOldestScoreOptions = offsetof(csrm_score_options, reuse_turns);

csrm::ScoreOptions to_options(const csrm_score_options& given) {
  csrm_score_options known{};  // what a shorter struct lacks is 0
  std::memcpy(&known, &given, std::min(given.struct_size, sizeof(known)));
  csrm::ScoreOptions options;
  options.judged = static_cast<csrm::Judged>(known.judged);
  options.explain = known.explain != 0;
  options.reuse_turns = known.reuse_turns != 0;
  options.is_growing = known.is_growing != 0;
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
    const size_t size = sizeof(csrm_scorer_options);
    if (Status bad = check_struct(given, size, "csrm_scorer_options"); !bad.ok()) return bad;
    options = to_options(*given);
  }
  auto handle = std::make_unique<csrm_scorer>();
  auto loaded = csrm::Scorer::load(artifact_dir, options);
  if (!loaded.ok()) return loaded.status();
  handle->scorer = std::move(loaded).value();
  *scorer = handle.release();
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
  Status bad = check_struct(given, kOldestScoreOptions, "csrm_score_options");
  if (bad.ok()) *options = to_options(*given);
  return bad;
}

Status prepare_result(csrm_score_result* result) {
  if (result == nullptr) return null_argument("result");
  if (result->struct_size < sizeof(csrm_score_result)) {
    return bad_argument("result is not initialised; call csrm_score_result_init first");
  }
  set_failed(result);
  return Status::success();
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

const char* csrm_last_error(void) { return last_error.c_str(); }

const char* csrm_code_name(int code) { return csrm::code_name(static_cast<Code>(code)); }

void csrm_scorer_options_init(csrm_scorer_options* options) {
  if (options == nullptr) return;
  const csrm::ScorerOptions defaults;
  const csrm::Limits limits;
  *options = {sizeof(csrm_scorer_options),
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
              limits.max_conversation_tokens};
}

int csrm_scorer_create(const char* artifact_dir, const csrm_scorer_options* options,
                       csrm_scorer** scorer) {
  return finish([&] { return create_scorer(artifact_dir, options, scorer); });
}

void csrm_scorer_destroy(csrm_scorer* scorer) { delete scorer; }

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
  if (options == nullptr || struct_size < kOldestScoreOptions) return;
  std::memset(static_cast<void*>(options), 0, struct_size);
  options->struct_size = struct_size;
  options->judged = CSRM_JUDGED_LAST;
}

// In parentheses, past the macro of this name: the caller's struct is the first header's.
void(csrm_score_options_init)(csrm_score_options* options) {
  csrm_score_options_init_sized(options, kOldestScoreOptions);
}

void csrm_score_result_init(csrm_score_result* result) {
  if (result == nullptr) return;
  *result = {};
  result->struct_size = sizeof(csrm_score_result);
  set_failed(result);
}

int csrm_score(const csrm_scorer* scorer, const csrm_config* config,
               const csrm_conversation* conversation, const csrm_score_options* options,
               csrm_score_result* result) {
  return finish([&] { return score_into(scorer, config, conversation, options, result); });
}

}  // extern "C"
