// An ONNX Runtime session on a device as an Engine: inputs and outputs bound to memory that stays,
// so that a score is one copy to the device, one launch and one wait. Not: opening the session
// (ort_cuda_engine.h) and not the device (device_memory.h).
//
// Memory: one block of inputs and one of results serve every shape, because runs come one after
// another. A prefix is copied to the device once (device_prefix.h); the one in use stands at a
// fixed address, copied there on the device when it changes. Results are written by the device
// straight into pinned host memory.
//
// Graphs: where the session captures CUDA graphs every node is on the device, for ONNX Runtime sees
// to it, and each shape (run_shape.h) is bound once, captured by its first run and replayed
// afterwards. What is larger than the fixed blocks, and what asks for keys and values, is bound for
// that call alone. So is every call of a session without graphs: there a node may be on the CPU,
// and ONNX Runtime copies what such a node reads at the moment it is bound. ONNX Runtime keeps
// graphs by thread and never frees one before the session, so at most kMaxGraphs are captured;
// later shapes are launched operator by operator.
//
// Deterministic mode: the same call (rows, their order, prefix) on the same GPU gives the same
// bits. Unlike on the CPU, a row in another batch may differ in the last bits, for the matrix
// products of another shape are other kernels.
#ifndef CSRM_SRC_BOUND_ENGINE_H_
#define CSRM_SRC_BOUND_ENGINE_H_

#include <cstddef>
#include <memory>
#include <mutex>

#include "device_memory.h"
#include "engine.h"
#include "model_session.h"

namespace csrm {

constexpr size_t kMaxGraphs = 64;

// Held by whatever works on a GPU for csrm, one thread of the process at a time: memory may be
// allocated or freed, and a graph captured, by any call, and the two must not meet.
std::mutex& device_mutex();

// `has_graphs`: the session was opened to capture CUDA graphs, and has no node on the CPU.
// Errors: EngineFailed (the device's memory).
Result<std::unique_ptr<Engine>> make_bound_engine(std::unique_ptr<ModelSession> session,
                                                  std::shared_ptr<DeviceMemory> memory,
                                                  bool has_graphs);

}  // namespace csrm

#endif  // CSRM_SRC_BOUND_ENGINE_H_
