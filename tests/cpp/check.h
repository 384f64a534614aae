// CHECK and a main for the C++ tests: a failed check prints its line and makes the test exit 1; a
// test that cannot run here is skipped aloud and makes it exit 77, which ctest shows as skipped.
// Not: a framework. Each test_*.cc is one program, run by ctest (cmake/native_tests.cmake).
#ifndef CSRM_TESTS_CPP_CHECK_H_
#define CSRM_TESTS_CPP_CHECK_H_

#include <atomic>
#include <cstdio>

namespace csrm_test {
// Checks may be made by several threads.
inline std::atomic<int> n_failures{0}, n_checks{0}, n_skipped{0};

inline void skip(int n_tests, const char* why) {
  n_skipped += n_tests;
  std::printf("SKIPPED %d TESTS: %s\n", n_tests, why);
}

inline constexpr const char* kNeedsModel = "they need the arguments ARTIFACT_FOLDER LIBONNXRUNTIME";

inline int summary() {
  std::printf("%d checks, %d failures, %d tests skipped\n", n_checks.load(), n_failures.load(),
              n_skipped.load());
  if (n_failures > 0) return 1;
  if (n_skipped > 0) return 77;
  return n_checks > 0 ? 0 : 1;
}
}  // namespace csrm_test

#define CHECK(condition)                                                        \
  do {                                                                          \
    ++csrm_test::n_checks;                                                      \
    if (!(condition)) {                                                         \
      ++csrm_test::n_failures;                                                  \
      std::printf("%s:%d: CHECK(%s) failed\n", __FILE__, __LINE__, #condition); \
    }                                                                           \
  } while (0)

#endif  // CSRM_TESTS_CPP_CHECK_H_
