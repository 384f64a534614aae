// Fibers, barriers and exchanges of the emulator (emulator.h).
#include "emulator.h"

#include <setjmp.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <memory>

namespace emulator {

Thread* current = nullptr;
uint3 block_index;
std::vector<unsigned char> shared_memory;

namespace {

constexpr size_t kStackBytes = 128 * 1024;

struct Warp {
  int arrived[2] = {}, left[2] = {};
  Operation operation[2] = {};
  unsigned char data[2][kLanes * kSlotBytes];
};

struct Fiber {
  Thread thread;
  jmp_buf context;
  bool has_begun = false, has_ended = false;
  std::unique_ptr<unsigned char[]> stack;
};

// The block that runs. Stacks are kept for the next one.
std::vector<Fiber> fibers;
std::vector<Warp> warps;
const std::function<void()>* body_of_thread;
int n_live, n_waiting;
unsigned generation;
uint64_t progress;  // grows when any fiber gets further
jmp_buf scheduler;
Fiber* running;

void yield() {
  if (_setjmp(running->context) == 0) _longjmp(scheduler, 1);
}

void release_barrier() {
  n_waiting = 0;
  ++generation;
  ++progress;
}

void fiber_main() {
  (*body_of_thread)();
  running->has_ended = true;
  ++progress;
  if (--n_live > 0 && n_waiting == n_live) release_barrier();
  _longjmp(scheduler, 1);
}

void resume(Fiber& fiber) {
  running = &fiber;
  current = &fiber.thread;
  if (_setjmp(scheduler) != 0) return;
  if (fiber.has_begun) _longjmp(fiber.context, 1);
  fiber.has_begun = true;
  ucontext_t start;
  getcontext(&start);
  start.uc_stack.ss_sp = fiber.stack.get();
  start.uc_stack.ss_size = kStackBytes;
  start.uc_link = nullptr;
  makecontext(&start, fiber_main, 0);
  setcontext(&start);
}

void run_block(int n_threads) {
  for (int i = 0; i < n_threads; ++i) {
    fibers[i].thread = Thread{};
    fibers[i].thread.index = make_uint3(static_cast<unsigned>(i), 0, 0);
    fibers[i].thread.lane = i % kLanes;
    fibers[i].thread.warp = i / kLanes;
    fibers[i].has_begun = fibers[i].has_ended = false;
  }
  for (Warp& warp : warps) warp = Warp{};
  n_live = n_threads;
  n_waiting = 0;
  while (n_live > 0) {
    const uint64_t before = progress;
    for (int i = 0; i < n_threads; ++i) {
      if (!fibers[i].has_ended) resume(fibers[i]);
    }
    if (progress == before) fail("all threads wait for each other");
  }
}

}  // namespace

void fail(const char* what) {
  std::printf("FAILED in the emulator: %s; block %u %u, thread %u\n", what, block_index.x,
              block_index.y, current == nullptr ? 0 : current->index.x);
  std::fflush(stdout);
  std::abort();
}

const unsigned char* meet(Operation operation, const void* in, size_t n) {
  Thread& thread = *current;
  Warp& warp = warps[thread.warp];
  const int slot = thread.n_meetings % 2;
  if (warp.arrived[slot] == 0) warp.operation[slot] = operation;
  if (warp.operation[slot] != operation) fail("lanes of a warp meet at different operations");
  std::memcpy(warp.data[slot] + thread.lane * kSlotBytes, in, n);
  ++warp.arrived[slot];
  ++progress;
  while (warp.arrived[slot] < kLanes) yield();
  return warp.data[slot];
}

void leave() {
  Warp& warp = warps[current->warp];
  const int slot = current->n_meetings++ % 2;
  if (++warp.left[slot] == kLanes) warp.arrived[slot] = warp.left[slot] = 0;
}

void sync_threads() {
  ++progress;
  if (++n_waiting == n_live) {
    release_barrier();
    return;
  }
  const unsigned mine = generation;
  while (generation == mine) yield();
}

void run_grid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body) {
  const int n_threads = static_cast<int>(block.x);
  if (n_threads % kLanes != 0 || block.y != 1 || block.z != 1) fail("a block of odd shape");
  while (fibers.size() < block.x) {
    fibers.emplace_back();
    fibers.back().stack.reset(new unsigned char[kStackBytes]);
  }
  warps.resize(std::max(warps.size(), fibers.size() / kLanes));
  body_of_thread = &body;
  for (block_index.y = 0; block_index.y < grid.y; ++block_index.y) {
    for (block_index.x = 0; block_index.x < grid.x; ++block_index.x) {
      shared_memory.assign(shared_bytes, 0xFF);  // NaN in every type
      run_block(n_threads);
    }
  }
}

}  // namespace emulator
