// Phases with work that the test plays: random plans on one to four threads, some of which come
// late; each unit once and in its phase, what was written before seen after. Made for
// ThreadSanitizer: nothing of the work is atomic, so that phases alone keep threads apart.
// Not: EncoderI8's work (test_encoder_i8.cc).
#include <chrono>
#include <cstdint>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "check.h"
#include "kernel_data.h"
#include "kernels/phases.h"

namespace {

using csrm::kernels::Phases;
using csrm_test::Random;
using Plan = std::vector<int64_t>;  // the number of units of each phase

// Each unit's number is made of all numbers of the phase before, so that one that was missing, came
// twice or was not seen changes every later one.
class Work {
 public:
  explicit Work(Plan plan) : plan_(std::move(plan)), before_{1}, runs_(plan_.size()) {
    for (size_t i = 0; i < plan_.size(); ++i) runs_[i].resize(static_cast<size_t>(plan_[i]));
  }

  int64_t open(int n_workers) {
    CHECK(n_workers >= 1 && n_workers >= most_workers_);
    most_workers_ = n_workers;
    if (n_opened_ > 0) before_.swap(now_);
    const int64_t n_units = n_opened_ < plan_.size() ? plan_[n_opened_] : 0;
    ++n_opened_;
    now_.assign(static_cast<size_t>(n_units), 0);
    return n_units;
  }

  void run(int64_t unit) noexcept {
    const auto u = static_cast<size_t>(unit);
    ++runs_[n_opened_ - 1][u];
    now_[u] = number(before_, u);
    if (now_[u] % 64 == 0) std::this_thread::yield();
  }

  // Whether every unit ran once, and the last phase has the numbers of one thread alone.
  bool is_complete() const {
    for (const std::vector<int>& phase : runs_) {
      for (const int n : phase) {
        if (n != 1) return false;
      }
    }
    std::vector<uint64_t> numbers = {1};
    for (const int64_t n_units : plan_) {
      std::vector<uint64_t> next(static_cast<size_t>(n_units));
      for (size_t u = 0; u < next.size(); ++u) next[u] = number(numbers, u);
      numbers.swap(next);
    }
    return n_opened_ == plan_.size() + 1 && before_ == numbers;
  }
  int most_workers() const { return most_workers_; }

 private:
  static uint64_t number(const std::vector<uint64_t>& before, size_t unit) {
    const uint64_t sum = std::accumulate(before.begin(), before.end(), uint64_t{unit} + 1);
    return (sum ^ sum >> 29) * 0x9E3779B97F4A7C15u;
  }

  const Plan plan_;
  std::vector<uint64_t> before_, now_;
  std::vector<std::vector<int>> runs_;
  size_t n_opened_ = 0;
  int most_workers_ = 0;
};

// Each thread comes after its microseconds.
void run_threads(Phases<Work>* phases, const std::vector<int64_t>& delays_us) {
  std::vector<std::thread> threads;
  for (const int64_t delay_us : delays_us) {
    threads.emplace_back([=] {
      if (delay_us > 0) std::this_thread::sleep_for(std::chrono::microseconds(delay_us));
      phases->run();
    });
  }
  for (std::thread& thread : threads) thread.join();
}

void test_phases_any_plan_and_threads_run_each_unit_once_in_its_phase() {
  Random random(1);
  for (int repeat = 0; repeat < 120; ++repeat) {
    const int64_t most_units = repeat % 3 == 0 ? 2 : 40;
    Work work(random.integers(random.below(200), 1, most_units));
    Phases<Work> phases(&work);
    const int n_threads = 1 + repeat % 4;
    run_threads(&phases, std::vector<int64_t>(static_cast<size_t>(n_threads), 0));
    CHECK(work.is_complete());
    CHECK(work.most_workers() <= n_threads);
  }
}

void test_phases_threads_that_come_late_or_after_the_end_delay_nobody() {
  Random random(2);
  for (int repeat = 0; repeat < 40; ++repeat) {
    Work work(random.integers(60, 1, 30));
    Phases<Work> phases(&work);
    run_threads(&phases, {0, random.below(300), random.below(300), 2000});
    CHECK(work.is_complete());
    phases.run();
    CHECK(work.is_complete());
  }
}

void test_phases_of_an_empty_plan_end_at_once() {
  Work work(Plan{});
  Phases<Work> phases(&work);
  run_threads(&phases, {0, 0, 0});
  CHECK(work.is_complete());
}

void test_phases_one_phase_of_many_units_is_shared() {
  Work work({100000, 3});
  Phases<Work> phases(&work);
  run_threads(&phases, {0, 0});
  CHECK(work.is_complete());
}

// The number of a phase begins anew after 2^16.
void test_phases_beyond_the_numbers_of_phases_go_on() {
  for (const int n_threads : {1, 2}) {
    Work work(Plan(70000, 2));
    Phases<Work> phases(&work);
    run_threads(&phases, std::vector<int64_t>(static_cast<size_t>(n_threads), 0));
    CHECK(work.is_complete());
  }
}

}  // namespace

int main() {
  test_phases_any_plan_and_threads_run_each_unit_once_in_its_phase();
  test_phases_threads_that_come_late_or_after_the_end_delay_nobody();
  test_phases_of_an_empty_plan_end_at_once();
  test_phases_one_phase_of_many_units_is_shared();
  test_phases_beyond_the_numbers_of_phases_go_on();
  return csrm_test::summary();
}
