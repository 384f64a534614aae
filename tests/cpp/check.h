// CHECK and a main for the C++ tests: a failed check prints its line and makes the test exit 1.
// Not: a framework. Each test_*.cc is one program, run by ctest.
#ifndef CSRM_TESTS_CPP_CHECK_H_
#define CSRM_TESTS_CPP_CHECK_H_

#include <cstdio>

namespace csrm_test {
inline int n_failures = 0;
inline int n_checks = 0;

inline int summary() {
  std::printf("%d checks, %d failures\n", n_checks, n_failures);
  return n_failures == 0 && n_checks > 0 ? 0 : 1;
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
