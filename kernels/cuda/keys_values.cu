// KeysValues on a GPU: key[b, l, h, t] = states[l][b, t, key_offset + h D ..], value likewise.
//
// Why it exists: ONNX Runtime runs a whole graph whoever asked for what, so this work is in every
// score. In standard operators it is a Concat of all layers' projections, queries among them, a
// Transpose, and a Gather or Slice and a Cast of each part: 6 launches that move every element five
// times. And a Concat of more than 32 tensors reads a list of addresses from memory of the host
// that is gone when a captured graph is replayed; decoders have more layers. Here the addresses are
// an argument of one kernel, which reads what is kept once and writes it once. A thread moves one
// pack of four; neighbours read one head of one token and write what follows.
#include <algorithm>
#include <string>

#include "kernels/cuda/dispatch.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/keys_values.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/pack.cuh"

namespace csrm::kernels::cuda {
namespace {

constexpr char kName[] = "KeysValues";
constexpr int kThreads = 256;
constexpr int64_t kMaxPacks = 2147483647;  // of one output

struct Layers {
  const void* states[kMaxKeyValueLayers];
};

// Sizes of the outputs, as unsigned ints: their products are counted in 32 bits.
struct Sizes {
  unsigned n_layers, n_heads, n_tokens, n_packs;  // n_packs: of one head of one token
  unsigned n_all_packs;                           // of one output
};

template <typename T, bool kWholePacks>
__global__ void __launch_bounds__(kThreads)
    keys_values_kernel(const KeysValuesParams p, const Layers layers, const Sizes sizes) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= sizes.n_all_packs) return;
  const unsigned row = i / sizes.n_packs;  // of D elements in the output
  const int first = static_cast<int>(i % sizes.n_packs) * kPack;
  const unsigned token = row % sizes.n_tokens, head_row = row / sizes.n_tokens;
  const unsigned head = head_row % sizes.n_heads, layer_row = head_row / sizes.n_heads;
  const unsigned layer = layer_row % sizes.n_layers;
  const int64_t entry = layer_row / sizes.n_layers;
  const bool is_key = blockIdx.y == 0;
  const int dim = static_cast<int>(p.head_dim);
  const T* from = static_cast<const T*>(layers.states[layer]) +
                  (entry * p.n_tokens + token) * p.width +
                  (is_key ? p.key_offset : p.value_offset) + static_cast<int64_t>(head) * dim;
  float numbers[kPack];
  load_pack<T, kWholePacks>(from, first, dim, numbers);
  float* to = (is_key ? p.key : p.value) + static_cast<int64_t>(row) * dim;
  store_pack<float, kWholePacks>(numbers, to, first, dim);
}

int64_t packs_of(const KeysValuesParams& p) {
  return p.n_batch * p.n_layers * p.n_kv_heads * p.n_tokens * ((p.head_dim + kPack - 1) / kPack);
}

template <typename T>
void launch(const KeysValuesParams& p, cudaStream_t stream) {
  Layers layers{};
  std::copy(p.states, p.states + p.n_layers, layers.states);
  const auto size = [](int64_t n) { return static_cast<unsigned>(n); };
  const Sizes sizes{size(p.n_layers), size(p.n_kv_heads), size(p.n_tokens),
                    size((p.head_dim + kPack - 1) / kPack), size(packs_of(p))};
  const dim3 grid(size((packs_of(p) + kThreads - 1) / kThreads), 2);
  const bool has_packs = (p.head_dim | p.width | p.key_offset | p.value_offset) % kPack == 0;
  const bool is_whole =
      has_packs && takes_packs<float>(p.key) && takes_packs<float>(p.value) &&
      std::all_of(p.states, p.states + p.n_layers, [](const void* s) { return takes_packs<T>(s); });
  if (is_whole) {
    keys_values_kernel<T, true><<<grid, kThreads, 0, stream>>>(p, layers, sizes);
  } else {
    keys_values_kernel<T, false><<<grid, kThreads, 0, stream>>>(p, layers, sizes);
  }
}

Status bad_argument(const std::string& message) {
  return {Code::kBadArgument, std::string(kName) + ": " + message};
}

// Counts of at most 2^31 - 1 whose product is too.
bool fits(const KeysValuesParams& p) {
  int64_t n = 1;
  for (const int64_t size : {p.n_batch, p.n_layers, p.n_kv_heads, p.n_tokens, p.head_dim}) {
    if (size < 0 || size > kMaxPacks) return false;
    if (size > 0 && n > kMaxPacks * kPack / size) return false;
    n *= size;
  }
  return packs_of(p) <= kMaxPacks;
}

Status check(const KeysValuesParams& p) {
  if (p.n_layers < 1 || p.n_layers > kMaxKeyValueLayers || p.n_kv_heads < 1 || p.head_dim < 1) {
    return bad_argument(std::to_string(p.n_layers) + " layers of " + std::to_string(p.n_kv_heads) +
                        " heads of " + std::to_string(p.head_dim) + "; give 1 to " +
                        std::to_string(kMaxKeyValueLayers) + " layers and sizes >= 1");
  }
  if (!fits(p)) return bad_argument("a size is negative or all are too large; split the batch");
  const int64_t columns = p.n_kv_heads * p.head_dim;
  for (const int64_t offset : {p.key_offset, p.value_offset}) {
    if (offset >= 0 && offset <= p.width - columns) continue;
    return bad_argument("an offset is " + std::to_string(offset) + " and " +
                        std::to_string(columns) + " columns are read; states have " +
                        std::to_string(p.width));
  }
  if (packs_of(p) == 0) return Status::success();
  if (p.states != nullptr && p.key != nullptr && p.value != nullptr &&
      std::all_of(p.states, p.states + p.n_layers, [](const void* s) { return s != nullptr; })) {
    return Status::success();
  }
  return bad_argument("a pointer is null; give every array of KeysValuesParams");
}

}  // namespace

Status keys_values(const KeysValuesParams& params, cudaStream_t stream) {
  if (Status status = check(params); !status.ok()) return status;
  if (packs_of(params) == 0) return Status::success();
  return launch_for(params.dtype, kName,
                    [&](auto element) { launch<decltype(element)>(params, stream); });
}

}  // namespace csrm::kernels::cuda
