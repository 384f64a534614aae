// Work in phases, shared by whichever threads come: each phase is some units that are independent
// of each other, and begins when the one before has ended. Threads take units in order and wait
// between phases without going to sleep, so a phase of some microseconds is worth sharing; a thread
// that comes late or never delays nobody. Not: threads (the caller's), or any arithmetic.
#ifndef CSRM_KERNELS_PHASES_H_
#define CSRM_KERNELS_PHASES_H_

#include <atomic>
#include <cstdint>
#include <thread>

namespace csrm::kernels {

// Tells the core that its thread waits for another's memory.
inline void pause_core() noexcept {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
  __builtin_ia32_pause();
#endif
}

// `Work` has two members. `int64_t open(int n_workers)`: begins the next phase, of which it returns
// the number of units, below 2^24; 0 when there is none left. n_workers >= 1 is how many threads
// have come so far. `void run(int64_t unit)`: does one unit of the phase opened last. open() is
// called by one thread at a time, when no unit runs; everything done before it is seen after it.
template <typename Work>
class Phases {
 public:
  // `work` lives longer. Opens the first phase.
  explicit Phases(Work* work) : work_(work) { open(); }

  // Returns when the last phase has ended. Any number of threads may be in it.
  void run() {
    n_workers_.fetch_add(1, std::memory_order_relaxed);
    for (;;) {
      const uint64_t taken = state_.fetch_add(1, std::memory_order_acquire);
      const uint64_t unit = taken & kMask, n_units = taken >> kBits & kMask;
      if (n_units == 0) return;
      if (unit >= n_units) {
        wait(taken >> 2 * kBits);
        continue;
      }
      work_->run(static_cast<int64_t>(unit));
      if (n_done_.fetch_add(1, std::memory_order_acq_rel) + 1 == n_units) open();
    }
  }

 private:
  // The state: a phase's number, its units and the next unit, in 16, 24 and 24 bits. Units that are
  // taken beyond a phase's, one by each thread that waits, do not reach the bits above.
  static constexpr int kBits = 24;
  static constexpr uint64_t kMask = (uint64_t{1} << kBits) - 1;
  // Waits of so many pauses, some 50 us, give way to threads that cannot run meanwhile.
  static constexpr int kPauses = 1000;

  void open() {
    const int n_workers = n_workers_.load(std::memory_order_relaxed);
    const auto n_units = static_cast<uint64_t>(work_->open(n_workers > 0 ? n_workers : 1));
    n_done_.store(0, std::memory_order_relaxed);
    ++number_;
    state_.store(number_ << 2 * kBits | n_units << kBits, std::memory_order_release);
  }

  void wait(uint64_t number) const {
    for (int i = 0; state_.load(std::memory_order_relaxed) >> 2 * kBits == number; ++i) {
      if (i < kPauses) {
        pause_core();
      } else {
        std::this_thread::yield();
      }
    }
  }

  Work* work_;
  uint64_t number_ = 0;  // of the phase, written while no unit runs
  std::atomic<int> n_workers_{0};
  alignas(64) std::atomic<uint64_t> state_{0};
  alignas(64) std::atomic<uint64_t> n_done_{0};
};

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_PHASES_H_
