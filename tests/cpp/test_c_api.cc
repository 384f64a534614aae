// The C API without a model: argument errors, struct sizes, messages and defaults. Scores through
// it are tested when a model folder and an engine library are given on the command line.
#include <cmath>
#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "check.h"
#include "csrm/csrm.h"

namespace {

void test_c_api_constants_match_library() {
  CHECK(csrm_abi_version() == CSRM_ABI_VERSION);
  CHECK(std::strcmp(csrm_code_name(CSRM_ERROR_BAD_UTF8), "BadUtf8") == 0);
  CHECK(std::strcmp(csrm_code_name(99), "Internal") == 0);
}

void test_c_api_null_handles_are_bad_arguments() {
  csrm_score_result result;
  csrm_score_result_init(&result);
  CHECK(csrm_score(nullptr, nullptr, nullptr, nullptr, &result) == CSRM_ERROR_BAD_ARGUMENT);
  CHECK(std::strstr(csrm_last_error(), "scorer") != nullptr);
  CHECK(result.verdict == CSRM_VERDICT_UNKNOWN && std::isnan(result.compliance));
  CHECK(csrm_score(nullptr, nullptr, nullptr, nullptr, nullptr) == CSRM_ERROR_BAD_ARGUMENT);
  CHECK(csrm_scorer_create("x", nullptr, nullptr) == CSRM_ERROR_BAD_ARGUMENT);
  CHECK(csrm_config_create(0.5, nullptr) == CSRM_ERROR_BAD_ARGUMENT);
  CHECK(csrm_config_add_rule(nullptr, "", 0, "a", 1) == CSRM_ERROR_BAD_ARGUMENT);
  CHECK(csrm_conversation_create(nullptr) == CSRM_ERROR_BAD_ARGUMENT);
  CHECK(csrm_conversation_add_turn(nullptr, 1, "a", 1) == CSRM_ERROR_BAD_ARGUMENT);
  csrm_scorer_options_init(nullptr);
  csrm_score_options_init(nullptr);
  csrm_score_result_init(nullptr);
  csrm_scorer_destroy(nullptr);
  csrm_config_destroy(nullptr);
  csrm_conversation_destroy(nullptr);
}

void test_c_api_scorer_bad_folder_or_options_give_no_handle() {
  csrm_scorer* scorer = reinterpret_cast<csrm_scorer*>(&scorer);
  CHECK(csrm_scorer_create(nullptr, nullptr, &scorer) == CSRM_ERROR_BAD_ARGUMENT);
  CHECK(scorer == nullptr);
  CHECK(csrm_scorer_create("no-such-folder", nullptr, &scorer) == CSRM_ERROR_BAD_ARTIFACT);
  CHECK(std::strlen(csrm_last_error()) > 0);
  csrm_scorer_options options;
  csrm_scorer_options_init(&options);
  CHECK(options.cache_tokens == 16384 && options.batch_tokens == 4096 && options.max_rules > 0);
  options.n_threads = -1;
  CHECK(csrm_scorer_create("no-such-folder", &options, &scorer) == CSRM_ERROR_BAD_ARGUMENT);
  csrm_scorer_options_init(&options);
  options.struct_size = 4;
  CHECK(csrm_scorer_create("no-such-folder", &options, &scorer) == CSRM_ERROR_BAD_ARGUMENT);
}

void test_c_api_options_of_newer_header_are_refused_if_set() {
  struct {
    csrm_scorer_options known;
    size_t newer;
  } options;
  std::memset(&options, 0, sizeof(options));
  csrm_scorer_options_init(&options.known);
  options.known.struct_size = sizeof(options);
  csrm_scorer* scorer = nullptr;
  CHECK(csrm_scorer_create("no-such-folder", &options.known, &scorer) == CSRM_ERROR_BAD_ARTIFACT);
  options.newer = 1;
  CHECK(csrm_scorer_create("no-such-folder", &options.known, &scorer) == CSRM_ERROR_UNSUPPORTED);
}

void test_c_api_score_options_of_older_header_keep_their_size() {
  struct {
    csrm_score_options known;
    unsigned char behind;
  } given;
  std::memset(&given, 0x5a, sizeof(given));
  (csrm_score_options_init)(&given.known);  // the function itself, as an older program calls it
  CHECK(given.known.struct_size == offsetof(csrm_score_options, reuse_turns));
  CHECK(given.known.judged == CSRM_JUDGED_LAST && given.known.explain == 0);
  CHECK(given.known.reuse_turns == 0x5a5a5a5a);
  csrm_score_options_init(&given.known);
  CHECK(given.known.struct_size == sizeof(csrm_score_options));
  CHECK(given.known.reuse_turns == 0 && given.known.is_growing == 0 && given.behind == 0x5a);
  csrm_score_options_init_sized(&given.known, 4);
  CHECK(given.known.struct_size == sizeof(csrm_score_options));
}

void test_c_api_values_out_of_range_are_refused() {
  csrm_config* config = nullptr;
  CHECK(csrm_config_create(1.5, &config) == CSRM_ERROR_BAD_ARGUMENT && config == nullptr);
  CHECK(csrm_config_create(std::nan(""), &config) == CSRM_ERROR_BAD_ARGUMENT);
  CHECK(csrm_config_create(0.5, &config) == CSRM_OK);
  CHECK(csrm_config_add_rule(config, nullptr, 0, "a", 1) == CSRM_OK);
  CHECK(csrm_config_add_rule(config, nullptr, 3, "a", 1) == CSRM_ERROR_BAD_ARGUMENT);
  CHECK(csrm_config_add_rule(config, "n", 1, nullptr, 1) == CSRM_ERROR_BAD_ARGUMENT);
  csrm_conversation* conversation = nullptr;
  CHECK(csrm_conversation_create(&conversation) == CSRM_OK);
  CHECK(csrm_conversation_add_turn(conversation, 4, "a", 1) == CSRM_ERROR_UNKNOWN_ROLE);
  CHECK(csrm_conversation_add_turn(conversation, -1, "a", 1) == CSRM_ERROR_UNKNOWN_ROLE);
  CHECK(csrm_conversation_add_turn(conversation, CSRM_ROLE_USER, nullptr, 1) ==
        CSRM_ERROR_BAD_ARGUMENT);
  csrm_conversation_destroy(conversation);
  csrm_config_destroy(config);
}

struct Handles {
  csrm_scorer* scorer = nullptr;
  csrm_config* config = nullptr;
  csrm_conversation* conversation = nullptr;
  ~Handles() {
    csrm_conversation_destroy(conversation);
    csrm_config_destroy(config);
    csrm_scorer_destroy(scorer);
  }
};

void test_c_api_score_fills_callers_arrays(const char* artifact, const char* library) {
  Handles h;
  csrm_scorer_options options;
  csrm_scorer_options_init(&options);
  options.engine_library = library;
  options.n_threads = 1;
  options.variant = "fused";  // int8 may round an activation of another row to its next level
  CHECK(csrm_scorer_create(artifact, &options, &h.scorer) == CSRM_OK);
  if (h.scorer == nullptr) {
    std::printf("%s\n", csrm_last_error());
    return;
  }
  CHECK(csrm_config_create(0.5, &h.config) == CSRM_OK);
  CHECK(csrm_conversation_create(&h.conversation) == CSRM_OK);
  csrm_score_result result;
  csrm_score_result_init(&result);
  CHECK(csrm_score(h.scorer, h.config, h.conversation, nullptr, &result) ==
        CSRM_ERROR_EMPTY_CONFIG);
  CHECK(csrm_config_add_rule(h.config, "n", 1, "a b", 3) == CSRM_OK);
  CHECK(csrm_config_add_rule(h.config, nullptr, 0, "c", 1) == CSRM_OK);
  CHECK(csrm_score(h.scorer, h.config, h.conversation, nullptr, &result) ==
        CSRM_ERROR_EMPTY_CONVERSATION);
  CHECK(result.verdict == CSRM_VERDICT_UNKNOWN);
  CHECK(csrm_conversation_add_turn(h.conversation, CSRM_ROLE_ASSISTANT, "x y", 3) == CSRM_OK);
  CHECK(csrm_conversation_add_turn(h.conversation, CSRM_ROLE_USER, "u", 1) == CSRM_OK);
  CHECK(csrm_conversation_add_turn(h.conversation, CSRM_ROLE_ASSISTANT, "z", 1) == CSRM_OK);
  csrm_score_options score_options;
  csrm_score_options_init(&score_options);
  score_options.judged = CSRM_JUDGED_ASSISTANT;
  score_options.explain = CSRM_EXPLAIN_EXACT;
  csrm_turn_score turns[1] = {{99, 0, 0}};
  csrm_rule_score rules[2] = {{99, 0, 0, 0}, {99, 0, 0, 0}};
  result.turns = turns;
  result.turn_capacity = 1;
  result.rules = rules;
  result.rule_capacity = 2;
  CHECK(csrm_score(h.scorer, h.config, h.conversation, &score_options, &result) == CSRM_OK);
  CHECK(result.n_turns == 2 && result.n_rules == 2);
  CHECK(turns[0].turn == 0 && turns[0].reward >= result.reward);
  CHECK(rules[0].rule == 0 && rules[1].rule == 1 && std::isfinite(rules[1].reward));
  CHECK(result.verdict ==
        (result.compliance >= 0.5f ? CSRM_VERDICT_COMPLIANT : CSRM_VERDICT_VIOLATION));
  const float reward = result.reward;
  score_options.reuse_turns = 1;
  for (int i = 0; i < 2; ++i) {
    CHECK(csrm_score(h.scorer, h.config, h.conversation, &score_options, &result) == CSRM_OK);
    CHECK(std::fabs(result.reward - reward) <= 1e-5f && result.n_turns == 2);
  }
  score_options.reuse_turns = 0;
  score_options.explain = CSRM_EXPLAIN_FAST;  // of two rules, which is the exact one
  const float of_rule = rules[1].reward;
  CHECK(csrm_score(h.scorer, h.config, h.conversation, &score_options, &result) == CSRM_OK);
  CHECK(result.n_rules == 2 && std::fabs(rules[1].reward - of_rule) <= 1e-5f);
  for (const int32_t unknown : {-1, 3}) {
    score_options.explain = unknown;
    CHECK(csrm_score(h.scorer, h.config, h.conversation, &score_options, &result) ==
          CSRM_ERROR_BAD_ARGUMENT);
  }
  score_options.explain = CSRM_EXPLAIN_NONE;
  score_options.is_growing = 1;
  CHECK(csrm_score(h.scorer, h.config, h.conversation, &score_options, &result) ==
        CSRM_ERROR_BAD_ARGUMENT);
  (csrm_score_options_init)(&score_options);  // what lies behind an older struct is not read
  CHECK(csrm_score(h.scorer, h.config, h.conversation, &score_options, &result) == CSRM_OK);
  csrm_score_options_init(&score_options);
  score_options.judged = 7;
  CHECK(csrm_score(h.scorer, h.config, h.conversation, &score_options, &result) ==
        CSRM_ERROR_BAD_ARGUMENT);
  CHECK(result.verdict == CSRM_VERDICT_UNKNOWN && result.n_turns == 0);
}

}  // namespace

int main(int argc, char** argv) {
  test_c_api_constants_match_library();
  test_c_api_null_handles_are_bad_arguments();
  test_c_api_scorer_bad_folder_or_options_give_no_handle();
  test_c_api_options_of_newer_header_are_refused_if_set();
  test_c_api_score_options_of_older_header_keep_their_size();
  test_c_api_values_out_of_range_are_refused();
  if (argc == 3) {
    test_c_api_score_fills_callers_arrays(argv[1], argv[2]);
  } else {
    csrm_test::skip(1, csrm_test::kNeedsModel);
  }
  return csrm_test::summary();
}
