// cuda_kernels [--checks | --bench] [--small] [--only WORD] [--verbose] [--seed N]: checks the CUDA
// kernels against the CPU ones and times them. Both by default. --small: the few cases for
// compute-sanitizer. Without a GPU it says what was skipped and exits 0; it exits 1 if a check
// fails. After an error that ends the CUDA context (an illegal address) it starts itself anew
// behind the check that met it, with --from and the counts so far.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "harness.h"

namespace {

using csrm_test::Check;
using csrm_test::Report;

struct Options {
  bool has_checks = true, has_bench = true, is_small = false, is_verbose = false;
  uint64_t seed = 1;
  std::string only;                            // checks whose name has it
  int from = 0, n_checks = 0, n_failures = 0;  // of the process before this one
};

// False at an option that does not exist.
bool parse(int argc, char** argv, Options& o) {
  for (int i = 1; i < argc; ++i) {
    const auto is = [&](const char* name) { return std::strcmp(argv[i], name) == 0; };
    const auto number = [&] { return i + 1 < argc ? std::strtoull(argv[++i], nullptr, 10) : 0; };
    if (is("--checks")) {
      o.has_bench = false;
    } else if (is("--bench")) {
      o.has_checks = false;
    } else if (is("--small")) {
      o.is_small = true;
    } else if (is("--verbose")) {
      o.is_verbose = true;
    } else if (is("--only")) {
      if (i + 1 < argc) o.only = argv[++i];
    } else if (is("--seed")) {
      o.seed = number();
    } else if (is("--from")) {
      o.from = static_cast<int>(number());
    } else if (is("--counts")) {
      o.n_checks = static_cast<int>(number());
      o.n_failures = static_cast<int>(number());
    } else {
      std::printf("unknown option %s; main.cc has the list\n", argv[i]);
      return false;
    }
  }
  return true;
}

// Goes on in a new process behind check `i`.
void restart(const char* program, const Options& o, size_t i, const Report& report) {
  const std::string from = std::to_string(i + 1), checks = std::to_string(report.n_checks),
                    failures = std::to_string(report.n_failures), seed = std::to_string(o.seed);
  std::vector<const char*> arguments{program,      "--from",   from.c_str(),   "--seed",
                                     seed.c_str(), "--counts", checks.c_str(), failures.c_str()};
  if (!o.has_bench) arguments.push_back("--checks");
  if (o.is_small) arguments.push_back("--small");
  if (o.is_verbose) arguments.push_back("--verbose");
  if (!o.only.empty()) arguments.insert(arguments.end(), {"--only", o.only.c_str()});
  arguments.push_back(nullptr);
  std::fflush(stdout);
  execv("/proc/self/exe", const_cast<char* const*>(arguments.data()));
  std::printf("FAILED: cannot start anew; the checks after this one did not run\n");
}

void run_checks(const std::vector<Check>& checks, const char* program, const Options& o,
                Report& report) {
  for (auto i = static_cast<size_t>(o.from); i < checks.size(); ++i) {
    if (checks[i].name.find(o.only) == std::string::npos) continue;
    checks[i].run(report);
    csrm_test::synchronised();
    const cudaError_t error = csrm_test::take_cuda_error();
    if (error == cudaSuccess) continue;
    report.expect(checks[i].name, false, std::string("CUDA error: ") + cudaGetErrorString(error));
    if (cudaDeviceSynchronize() == cudaSuccess && cudaFree(nullptr) == cudaSuccess) continue;
    report.print_groups();
    restart(program, o, i, report);
    return;
  }
}

bool has_device() {
  int n = 0;
  if (cudaGetDeviceCount(&n) != cudaSuccess || n == 0) return false;
  cudaDeviceProp properties{};
  if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess) return false;
  std::printf("%s, sm_%d%d, %d processors\n", properties.name, properties.major, properties.minor,
              properties.multiProcessorCount);
  return true;
}

double seconds() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (!parse(argc, argv, options)) return 2;
  csrm_test::set_seed(options.seed);
  std::vector<Check> checks = csrm_test::row_checks(options.is_small);
  for (const auto more : {csrm_test::decoder_checks, csrm_test::attention_checks}) {
    for (Check& check : more(options.is_small)) checks.push_back(std::move(check));
  }
  if (!has_device()) {
    std::printf("SKIPPED: no CUDA device. %zu cases of the CUDA kernels did NOT run.\n",
                checks.size());
    return 0;
  }
  Report report(options.is_verbose);
  report.n_checks = options.n_checks;
  report.n_failures = options.n_failures;
  if (options.has_checks) {
    const double begin = seconds();
    run_checks(checks, argv[0], options, report);
    report.print_groups();
    std::printf("seed %llu: %zu cases, %d checks, %d failures, %.1f s\n",
                static_cast<unsigned long long>(options.seed), checks.size(), report.n_checks,
                report.n_failures, seconds() - begin);
    std::fflush(stdout);
  }
  const bool is_timed = !options.has_bench || csrm_test::run_bench();
  return report.n_failures == 0 && is_timed ? 0 : 1;
}
