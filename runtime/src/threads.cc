// Counts cores from the affinity mask and sysfs; a container's quota comes from cgroup v2.
#include "threads.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>

#if defined(__linux__)
#include <sched.h>
#endif

namespace csrm {
namespace {

#if defined(__linux__)
using FilePointer = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

int read_integer(const std::string& path) {
  const FilePointer file(std::fopen(path.c_str(), "re"), std::fclose);
  int value = -1;
  if (file == nullptr || std::fscanf(file.get(), "%d", &value) != 1) return -1;
  return value;
}

int allowed_physical_cores() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (::sched_getaffinity(0, sizeof(mask), &mask) != 0) return 0;
  std::set<std::pair<int, int>> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &mask)) continue;
    const std::string folder = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
    const int core = read_integer(folder + "core_id");
    const int package = read_integer(folder + "physical_package_id");
    // A cpu whose topology is hidden counts as its own core.
    cores.insert(core < 0 ? std::make_pair(-1, cpu) : std::make_pair(package, core));
  }
  return static_cast<int>(cores.size());
}

int quota_cores() {
  const FilePointer file(std::fopen("/sys/fs/cgroup/cpu.max", "re"), std::fclose);
  long long quota = 0, period = 0;
  if (file == nullptr || std::fscanf(file.get(), "%lld %lld", &quota, &period) != 2) return 0;
  return period > 0 ? static_cast<int>((quota + period - 1) / period) : 0;
}
#endif

int count_threads() {
  int n = 0;
#if defined(__linux__)
  n = allowed_physical_cores();
  const int quota = quota_cores();
  if (quota > 0) n = std::min(n, quota);
#endif
  if (n <= 0) n = static_cast<int>(std::thread::hardware_concurrency());
  return std::max(n, 1);
}

}  // namespace

int default_threads() noexcept {
  try {
    return count_threads();
  } catch (...) {
    return 1;
  }
}

}  // namespace csrm
