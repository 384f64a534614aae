// The main of a test program whose tests run once for a version of the kernels: `PROGRAM VERSION`.
// Not: tests, or which versions there are for ctest (cmake/native_tests.cmake).
#ifndef CSRM_TESTS_CPP_ISA_TESTS_H_
#define CSRM_TESTS_CPP_ISA_TESTS_H_

#include <cstring>
#include <initializer_list>

#include "check.h"
#include "kernels/isa.h"

namespace csrm_test {

using IsaTest = void (*)(csrm::kernels::Isa);

// Runs `tests` on the version that argv[1] names, or skips them where `is_supported` says no.
// The exit status of the program; 1 for a version that there is not.
inline int run_isa_tests(int argc, char** argv, std::initializer_list<IsaTest> tests,
                         bool (*is_supported)(csrm::kernels::Isa) = csrm::kernels::isa_supported) {
  using csrm::kernels::Isa;
  const struct {
    const char* name;
    Isa isa;
  } versions[] = {{"portable", Isa::kPortable},
                  {"avx2", Isa::kAvx2},
                  {"avx512", Isa::kAvx512},
                  {"amx", Isa::kAmx}};
  for (const auto& version : versions) {
    if (argc != 2 || std::strcmp(argv[1], version.name) != 0) continue;
    if (is_supported(version.isa)) {
      for (const IsaTest test : tests) test(version.isa);
    } else {
      skip(static_cast<int>(tests.size()), "this CPU or build lacks that version of the kernels");
    }
    return summary();
  }
  std::printf("give a version of the kernels: portable, avx2, avx512 or amx\n");
  return 1;
}

}  // namespace csrm_test

#endif  // CSRM_TESTS_CPP_ISA_TESTS_H_
