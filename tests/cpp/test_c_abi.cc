// The C ABI against programs that misuse it or were built against another header: sizes of structs,
// structs that nobody initialised, memory that ends at any allocation. Nothing may throw or crash.
// Not: what the functions do for good callers (test_c_api.cc, test_c_scheduler.c). Links the
// objects of the library, so that its `operator new` is the one below.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <string>

#include "check.h"
#include "csrm/csrm.h"

namespace {
// Allocations of this thread that succeed before the next one fails; negative = all do.
thread_local long n_allocations_left = -1;

void* allocate(size_t n_bytes) noexcept {
  if (n_allocations_left == 0) return nullptr;
  if (n_allocations_left > 0) --n_allocations_left;
  return std::malloc(n_bytes != 0 ? n_bytes : 1);
}
}  // namespace

void* operator new(size_t n_bytes) {
  void* memory = allocate(n_bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void* operator new(size_t n_bytes, const std::nothrow_t&) noexcept { return allocate(n_bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace {

// What programs built so far rely on. A failure here means that they break: append fields, never
// change or reorder them.
void test_c_abi_layout_is_that_of_version_1() {
#if defined(__LP64__)
  CHECK(sizeof(csrm_turn_score) == 16 && offsetof(csrm_turn_score, compliance) == 12);
  CHECK(sizeof(csrm_rule_score) == 24 && offsetof(csrm_rule_score, verdict) == 16);
  CHECK(offsetof(csrm_scorer_options, n_threads) == 32);
  CHECK(offsetof(csrm_scorer_options, cache_tokens) == 40);
  CHECK(offsetof(csrm_scorer_options, max_conversation_tokens) == 88);
  CHECK(offsetof(csrm_scorer_options, device) == 96);
  CHECK(offsetof(csrm_scorer_info, threshold) == 48);
  CHECK(offsetof(csrm_scorer_info, n_threads) == 80);
  CHECK(offsetof(csrm_scorer_info, device) == 88);
  CHECK(offsetof(csrm_scorer_info, cache_token_bytes) == 96);
  CHECK(offsetof(csrm_score_options, explain) == 12);
  CHECK(offsetof(csrm_score_options, is_growing) == 20);
  CHECK(offsetof(csrm_score_result, verdict) == 16);
  CHECK(offsetof(csrm_score_result, scored_tokens) == 24);
  CHECK(offsetof(csrm_score_result, turns) == 48);
  CHECK(offsetof(csrm_score_result, rule_capacity) == 72);
  CHECK(offsetof(csrm_scheduler_options, max_requests) == 16);
  CHECK(offsetof(csrm_scheduler_options, patience_ms) == 40);
  CHECK(offsetof(csrm_scheduler_stats, n_accepted) == 32);
  CHECK(offsetof(csrm_scheduler_stats, max_queue_time_ns) == 128);
#endif
  CHECK(csrm_abi_version() == 1);
  CHECK(std::strcmp(csrm_version(), CSRM_VERSION) == 0);
  const std::string version = std::to_string(CSRM_VERSION_MAJOR) + "." +
                              std::to_string(CSRM_VERSION_MINOR) + "." +
                              std::to_string(CSRM_VERSION_PATCH);
  CHECK(version == CSRM_VERSION);
}

// `oldest`: bytes of the struct in the first header.
template <typename Struct>
void check_init(void (*init_sized)(Struct*, size_t), void (*init)(Struct*), size_t oldest) {
  struct {
    Struct known;
    unsigned char newer[32];
  } given;
  const auto* bytes = reinterpret_cast<const unsigned char*>(&given);
  std::memset(static_cast<void*>(&given), 0x5a, sizeof(given));
  init(&given.known);
  CHECK(given.known.struct_size == oldest && (oldest == sizeof(given) || bytes[oldest] == 0x5a));
  init_sized(&given.known, sizeof(Struct));
  CHECK(given.known.struct_size == sizeof(Struct) && given.newer[0] == 0x5a);
  init_sized(&given.known, sizeof(given));  // by a newer header
  CHECK(given.known.struct_size == sizeof(given) && given.newer[0] == 0 && given.newer[31] == 0);
  std::memset(static_cast<void*>(&given), 0x5a, sizeof(given));
  init_sized(&given.known, oldest - 1);
  init_sized(&given.known, std::numeric_limits<size_t>::max());
  init_sized(nullptr, sizeof(Struct));
  init(nullptr);
  CHECK(bytes[0] == 0x5a && given.newer[31] == 0x5a);
}

void test_c_abi_init_keeps_to_the_callers_size() {
  check_init(csrm_scorer_options_init_sized, (csrm_scorer_options_init),
             offsetof(csrm_scorer_options, device));
  check_init(csrm_scorer_info_init_sized, (csrm_scorer_info_init),
             offsetof(csrm_scorer_info, device));
  check_init(csrm_score_options_init_sized, (csrm_score_options_init),
             offsetof(csrm_score_options, reuse_turns));
  check_init(csrm_score_result_init_sized, (csrm_score_result_init), sizeof(csrm_score_result));
  check_init(csrm_scheduler_options_init_sized, (csrm_scheduler_options_init),
             sizeof(csrm_scheduler_options));
  check_init(csrm_scheduler_stats_init_sized, (csrm_scheduler_stats_init),
             sizeof(csrm_scheduler_stats));
}

void test_c_abi_structs_not_initialised_are_refused_unread() {
  for (const int fill : {0, 0x5a, 0xff}) {  // sizes that are too small and beyond all memory
    csrm_scorer_options options;
    std::memset(&options, fill, sizeof(options));
    csrm_scorer* scorer = nullptr;
    CHECK(csrm_scorer_create("no-such-folder", &options, &scorer) == CSRM_ERROR_BAD_ARGUMENT);
    CHECK(std::strstr(csrm_last_error(), "options is not initialised") != nullptr);
    csrm_score_result result;
    std::memset(&result, fill, sizeof(result));
    CHECK(csrm_score(nullptr, nullptr, nullptr, nullptr, &result) == CSRM_ERROR_BAD_ARGUMENT);
    CHECK(std::strstr(csrm_last_error(), "result is not initialised") != nullptr);
    CHECK(csrm_scheduler_score(nullptr, nullptr, nullptr, nullptr, -1, &result) ==
          CSRM_ERROR_BAD_ARGUMENT);
    CHECK(std::strstr(csrm_last_error(), "result is not initialised") != nullptr);
  }
}

void test_c_abi_null_arguments_of_new_functions_are_refused() {
  csrm_config* config = reinterpret_cast<csrm_config*>(&config);
  csrm_conversation* conversation = reinterpret_cast<csrm_conversation*>(&conversation);
  csrm_scorer_info info;
  csrm_scorer_info_init(&info);
  CHECK(csrm_config_parse_json(nullptr, 3, &config) == CSRM_ERROR_BAD_ARGUMENT);
  CHECK(config == nullptr);
  CHECK(csrm_config_parse_json("{}", 2, nullptr) == CSRM_ERROR_BAD_ARGUMENT);
  CHECK(csrm_config_parse_json(nullptr, 0, &config) == CSRM_ERROR_BAD_CONFIG);
  CHECK(csrm_config_parse_json("{}", 2, &config) == CSRM_ERROR_BAD_CONFIG && config == nullptr);
  CHECK(csrm_conversation_parse_json(nullptr, 3, &conversation) == CSRM_ERROR_BAD_ARGUMENT);
  CHECK(conversation == nullptr);
  CHECK(csrm_conversation_parse_json("[]", 2, nullptr) == CSRM_ERROR_BAD_ARGUMENT);
  CHECK(csrm_conversation_parse_json("[]", 2, &conversation) == CSRM_ERROR_EMPTY_CONVERSATION);
  CHECK(csrm_scorer_get_info(nullptr, &info) == CSRM_ERROR_BAD_ARGUMENT);
}

void test_c_abi_sizes_beyond_memory_are_errors() {
  constexpr size_t kHuge = std::numeric_limits<size_t>::max();
  csrm_config* config = nullptr;
  csrm_conversation* conversation = nullptr;
  CHECK(csrm_config_create(0.5, &config) == CSRM_OK);
  CHECK(csrm_conversation_create(&conversation) == CSRM_OK);
  CHECK(csrm_config_add_rule(config, "", 0, "a", kHuge) == CSRM_ERROR_LIMIT_EXCEEDED);
  CHECK(csrm_config_add_rule(config, "a", kHuge, "", 0) == CSRM_ERROR_LIMIT_EXCEEDED);
  CHECK(csrm_conversation_add_turn(conversation, CSRM_ROLE_USER, "a", kHuge) ==
        CSRM_ERROR_LIMIT_EXCEEDED);
  csrm_config_destroy(config);
  CHECK(csrm_config_parse_json("{}", kHuge, &config) == CSRM_ERROR_LIMIT_EXCEEDED);
  CHECK(config == nullptr);
  csrm_conversation_destroy(conversation);
}

// Lets the first, second, ... allocation of `call` fail until it returns `expected`: every other
// time it must have returned LIMIT_EXCEEDED. Returns how often memory ended.
template <typename Call>
int run_out_of_memory(int expected, Call&& call) {
  for (int n = 0; n < 100000; ++n) {
    n_allocations_left = n;
    const int code = call();
    n_allocations_left = -1;
    if (code == expected) return n;
    CHECK(code == CSRM_ERROR_LIMIT_EXCEEDED);
    if (code != CSRM_ERROR_LIMIT_EXCEEDED) return -1;
  }
  return -1;
}

constexpr char kConfig[] = "{\"rules\": [\"A rule that is longer than any inline buffer.\"]}";
constexpr char kBody[] =
    "[{\"role\": \"user\", \"content\": \"A text that is longer than any inline buffer.\"}]";

void test_c_abi_out_of_memory_is_a_code_wherever_it_happens() {
  csrm_config* config = nullptr;
  csrm_conversation* conversation = nullptr;
  csrm_scorer* scorer = nullptr;
  const std::string text(1000, 'a');
  CHECK(run_out_of_memory(CSRM_OK, [&] { return csrm_config_create(0.5, &config); }) > 0);
  CHECK(run_out_of_memory(CSRM_OK, [&] {
          return csrm_config_add_rule(config, text.data(), text.size(), text.data(), text.size());
        }) > 0);
  csrm_config_destroy(config);
  CHECK(run_out_of_memory(CSRM_OK, [&] {
          return csrm_config_parse_json(kConfig, sizeof(kConfig) - 1, &config);
        }) > 0);
  csrm_config_destroy(config);
  CHECK(run_out_of_memory(CSRM_OK, [&] { return csrm_conversation_create(&conversation); }) > 0);
  CHECK(run_out_of_memory(CSRM_OK, [&] {
          return csrm_conversation_add_turn(conversation, 1, text.data(), text.size());
        }) > 0);
  csrm_conversation_destroy(conversation);
  CHECK(run_out_of_memory(CSRM_OK, [&] {
          return csrm_conversation_parse_json(kBody, sizeof(kBody) - 1, &conversation);
        }) > 0);
  csrm_conversation_destroy(conversation);
  CHECK(run_out_of_memory(CSRM_ERROR_BAD_ARTIFACT, [&] {
          return csrm_scorer_create("no-such-folder", nullptr, &scorer);
        }) > 0);
  CHECK(scorer == nullptr && std::strlen(csrm_last_error()) > 0);
}

csrm_scorer* load(const char* artifact, const char* library) {
  csrm_scorer_options options;
  csrm_scorer* scorer = nullptr;
  csrm_scorer_options_init(&options);
  options.engine_library = library;
  options.n_threads = 1;
  CHECK(csrm_scorer_create(artifact, &options, &scorer) == CSRM_OK);
  if (scorer == nullptr) std::printf("%s\n", csrm_last_error());
  return scorer;
}

void test_c_abi_engine_is_the_one_the_environment_names(const char* artifact, const char* library) {
  csrm_scorer* scorer = nullptr;
  ::setenv("CSRM_ENGINE_LIBRARY", "/no/such/libonnxruntime.so", 1);
  CHECK(csrm_scorer_create(artifact, nullptr, &scorer) == CSRM_ERROR_ENGINE_UNAVAILABLE);
  CHECK(std::strstr(csrm_last_error(), "CSRM_ENGINE_LIBRARY") != nullptr);
  csrm_scorer_destroy(load(artifact, library));  // a path in the options comes first
  ::setenv("CSRM_ENGINE_LIBRARY", library, 1);
  CHECK(csrm_scorer_create(artifact, nullptr, &scorer) == CSRM_OK);
  csrm_scorer_destroy(scorer);
  ::unsetenv("CSRM_ENGINE_LIBRARY");
}

void test_c_abi_info_says_what_was_loaded(const csrm_scorer* scorer) {
  csrm_scorer_info info;
  std::memset(&info, 0, sizeof(info));
  CHECK(csrm_scorer_get_info(scorer, nullptr) == CSRM_ERROR_BAD_ARGUMENT);
  CHECK(csrm_scorer_get_info(scorer, &info) == CSRM_ERROR_BAD_ARGUMENT && info.name == nullptr);
  csrm_scorer_info_init(&info);
  CHECK(csrm_scorer_get_info(scorer, &info) == CSRM_OK && info.struct_size == sizeof(info));
  CHECK(std::strlen(info.name) > 0 && std::strlen(info.artifact_digest) == 64);
  const std::string variant = info.variant;
  CHECK(variant == "fused" || variant == "portable" || variant == "half" || variant == "int8");
  CHECK(info.n_threads == 1 && info.engine_version[0] >= '1' && info.backbone[0] != '\0');
  CHECK(std::strcmp(info.device, "cpu") == 0);
  CHECK(info.cache_token_bytes > 0 && info.cache_token_bytes % 4 == 0);
  CHECK(info.threshold > 0.0 && info.threshold < 1.0 && info.calibration_a > 0.0);
}

void test_c_abi_device_that_was_named_is_taken_or_refused(const char* artifact,
                                                          const char* library) {
  csrm_scorer_options options;
  csrm_scorer_options_init(&options);
  options.engine_library = library;
  options.n_threads = 1;
  csrm_scorer* scorer = nullptr;
  options.device = "gpu";
  CHECK(csrm_scorer_create(artifact, &options, &scorer) == CSRM_ERROR_BAD_ARGUMENT);
  CHECK(std::strstr(csrm_last_error(), "\"tensorrt\"") != nullptr && scorer == nullptr);
  options.device = "cpu";
  CHECK(csrm_scorer_create(artifact, &options, &scorer) == CSRM_OK);
  csrm_scorer_destroy(scorer);
}

void test_c_abi_results_of_a_newer_header_keep_their_fields(const csrm_scorer* scorer,
                                                            const csrm_config* config,
                                                            const csrm_conversation* conversation) {
  struct {
    csrm_score_result known;
    size_t newer;
  } result;
  csrm_score_result_init_sized(&result.known, sizeof(result));
  result.newer = 77;
  CHECK(csrm_score(scorer, config, conversation, nullptr, &result.known) == CSRM_OK);
  CHECK(result.known.struct_size == sizeof(result) && result.newer == 77);
  CHECK(result.known.verdict != CSRM_VERDICT_UNKNOWN && result.known.n_turns == 1);
  std::memset(&result, 0x5a, sizeof(result));
  CHECK(csrm_score(scorer, config, conversation, nullptr, &result.known) ==
        CSRM_ERROR_BAD_ARGUMENT);
  csrm_score_options options;
  std::memset(&options, 0xff, sizeof(options));
  csrm_score_result_init(&result.known);
  CHECK(csrm_score(scorer, config, conversation, &options, &result.known) ==
        CSRM_ERROR_BAD_ARGUMENT);
  CHECK(result.known.verdict == CSRM_VERDICT_UNKNOWN && std::isnan(result.known.reward));
}

void count_call(void* user_data, int, const csrm_score_result*) { ++*static_cast<int*>(user_data); }

void test_c_abi_scheduler_structs_and_memory(const csrm_scorer* scorer, const csrm_config* config,
                                             const csrm_conversation* conversation) {
  csrm_scheduler* scheduler = nullptr;
  csrm_scheduler_options options;
  csrm_scheduler_stats stats;
  std::memset(&options, 0xff, sizeof(options));
  CHECK(csrm_scheduler_create(scorer, &options, &scheduler) == CSRM_ERROR_BAD_ARGUMENT);
  CHECK(scheduler == nullptr);
  CHECK(csrm_scheduler_create(scorer, nullptr, &scheduler) == CSRM_OK);
  std::memset(&stats, 0xff, sizeof(stats));
  CHECK(csrm_scheduler_get_stats(scheduler, &stats) == CSRM_ERROR_BAD_ARGUMENT);
  int n_calls = 0;
  const int n_failures = run_out_of_memory(CSRM_OK, [&] {
    return csrm_scheduler_submit(scheduler, config, conversation, nullptr, -1, count_call, &n_calls,
                                 nullptr);
  });
  CHECK(n_failures > 0);
  csrm_scheduler_stats_init(&stats);
  CHECK(csrm_scheduler_get_stats(scheduler, &stats) == CSRM_OK && stats.n_accepted == 1);
  csrm_scheduler_destroy(scheduler);
  CHECK(n_calls == 1);  // of the one that was accepted
}

void test_with_model(const char* artifact, const char* library) {
  test_c_abi_engine_is_the_one_the_environment_names(artifact, library);
  test_c_abi_device_that_was_named_is_taken_or_refused(artifact, library);
  csrm_scorer* scorer = load(artifact, library);
  if (scorer == nullptr) return;
  csrm_config* config = nullptr;
  csrm_conversation* conversation = nullptr;
  CHECK(csrm_config_parse_json(kConfig, sizeof(kConfig) - 1, &config) == CSRM_OK);
  CHECK(csrm_conversation_parse_json(kBody, sizeof(kBody) - 1, &conversation) == CSRM_OK);
  test_c_abi_info_says_what_was_loaded(scorer);
  test_c_abi_results_of_a_newer_header_keep_their_fields(scorer, config, conversation);
  test_c_abi_scheduler_structs_and_memory(scorer, config, conversation);
  csrm_conversation_destroy(conversation);
  csrm_config_destroy(config);
  csrm_scorer_destroy(scorer);
}

}  // namespace

int main(int argc, char** argv) {
  test_c_abi_layout_is_that_of_version_1();
  test_c_abi_init_keeps_to_the_callers_size();
  test_c_abi_structs_not_initialised_are_refused_unread();
  test_c_abi_null_arguments_of_new_functions_are_refused();
  test_c_abi_sizes_beyond_memory_are_errors();
  test_c_abi_out_of_memory_is_a_code_wherever_it_happens();
  if (argc == 3) {
    test_with_model(argv[1], argv[2]);
  } else {
    csrm_test::skip(5, csrm_test::kNeedsModel);
  }
  return csrm_test::summary();
}
