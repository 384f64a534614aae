// What csrm makes of ONNX Runtime's library: found or not, and silent. That it is silent is seen in
// the user's cache folder, where its telemetry would keep an identifier and a database. Needs an
// artifact folder and an engine library on the command line. Not: sessions and tensors.
#include <cstdlib>
#include <filesystem>
#include <string>

#include "check.h"
#include "csrm/scorer.h"
#include "engine_library.h"

namespace {

std::string choice_about_telemetry() {
  const char* value = std::getenv("ORT_DISABLE_TELEMETRY");
  return value != nullptr ? value : "not set";
}

void test_engine_library_missing_is_unavailable() {
  CHECK(csrm::load_engine_library("no-such-library.so").status().code ==
        csrm::Code::kEngineUnavailable);
}

void test_engine_library_users_choice_about_telemetry_stays() {
  ::setenv("ORT_DISABLE_TELEMETRY", "0", 1);
  CHECK(!csrm::load_engine_library("no-such-library.so").ok());
  CHECK(choice_about_telemetry() == "0");
}

void test_engine_scores_and_writes_nothing_in_the_cache_folder(const char* artifact,
                                                               const char* library) {
  for (const char* silencing : {"ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "CI"}) {
    ::unsetenv(silencing);
  }
  std::string folder = (std::filesystem::temp_directory_path() / "csrm-test-XXXXXX").string();
  CHECK(::mkdtemp(folder.data()) != nullptr);
  ::setenv("HOME", folder.c_str(), 1);
  ::setenv("XDG_CACHE_HOME", folder.c_str(), 1);
  {
    csrm::ScorerOptions options;
    options.engine_library = library;
    options.n_threads = 1;
    const auto scorer = csrm::Scorer::load(artifact, options);
    CHECK(scorer.ok());
    if (scorer.ok()) {
      const csrm::Config config{{{"", "Never promise a refund."}}, 0.5};
      CHECK(scorer.value()->score(config, {{csrm::Role::kAssistant, "Hello."}}, {}).ok());
    }
  }
  CHECK(choice_about_telemetry() == "1");
  CHECK(std::filesystem::is_empty(folder));
  std::filesystem::remove_all(folder);
}

}  // namespace

int main(int argc, char** argv) {
  test_engine_library_missing_is_unavailable();
  test_engine_library_users_choice_about_telemetry_stays();
  if (argc == 3) {
    test_engine_scores_and_writes_nothing_in_the_cache_folder(argv[1], argv[2]);
  } else {
    csrm_test::skip(1, csrm_test::kNeedsModel);
  }
  return csrm_test::summary();
}
