// Memory, numbers and reports of the CUDA checks (harness.h).
#include "harness.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>

namespace csrm_test {
namespace {

constexpr size_t kGuard = 256;
constexpr int kPoison = 0xFF;

cudaError_t first_error = cudaSuccess;
uint64_t program_seed = 0;

void note(cudaError_t error) {
  if (first_error == cudaSuccess) first_error = error;
}

template <typename Narrow>
std::vector<unsigned char> narrowed(const std::vector<float>& values, Narrow narrow) {
  std::vector<unsigned char> out(values.size() * sizeof(narrow(0.0f)));
  for (size_t i = 0; i < values.size(); ++i) {
    const auto element = narrow(values[i]);
    std::memcpy(out.data() + i * sizeof(element), &element, sizeof(element));
  }
  return out;
}

std::vector<unsigned char> encoded(const std::vector<float>& values, DType dtype) {
  if (dtype == DType::kFloat16) return narrowed(values, [](float x) { return __float2half_rn(x); });
  if (dtype == DType::kBFloat16) {
    return narrowed(values, [](float x) { return __float2bfloat16_rn(x); });
  }
  return narrowed(values, [](float x) { return x; });
}

template <typename Element, typename Widen>
std::vector<float> widened(const std::vector<unsigned char>& bytes, Widen widen) {
  std::vector<float> out(bytes.size() / sizeof(Element));
  for (size_t i = 0; i < out.size(); ++i) {
    Element element;
    std::memcpy(&element, bytes.data() + i * sizeof(Element), sizeof(Element));
    out[i] = widen(element);
  }
  return out;
}

std::vector<float> decoded(const std::vector<unsigned char>& bytes, DType dtype) {
  if (dtype == DType::kFloat16) {
    return widened<__half>(bytes, [](__half x) { return __half2float(x); });
  }
  if (dtype == DType::kBFloat16) {
    return widened<__nv_bfloat16>(bytes, [](__nv_bfloat16 x) { return __bfloat162float(x); });
  }
  return widened<float>(bytes, [](float x) { return x; });
}

}  // namespace

uint64_t Random::next() {  // splitmix64
  uint64_t z = state_ += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

float Random::normal() {  // the sum of 4 uniform numbers is near enough
  float sum = 0;
  for (uint64_t bits = next(), i = 0; i < 4; ++i, bits >>= 16) sum += (bits & 0xFFFF) / 65536.0f;
  return (sum - 2.0f) * 1.7320508f;
}

int Random::below(int n) { return static_cast<int>((next() >> 16) % static_cast<uint64_t>(n)); }

std::vector<float> Random::normals(size_t n, float size, float offset) {
  std::vector<float> out(n);
  for (float& x : out) x = normal() * size + offset;
  return out;
}

void set_seed(uint64_t seed) { program_seed = seed; }

uint64_t seed_of(const std::string& name) {  // FNV-1a
  uint64_t hash = 0xCBF29CE484222325u ^ program_seed;
  for (const unsigned char c : name) hash = (hash ^ c) * 0x100000001B3u;
  return hash;
}

void round_to(DType dtype, std::vector<float>& values) {
  if (dtype != DType::kFloat32) values = decoded(encoded(values, dtype), dtype);
}

DeviceArray::DeviceArray(size_t n_bytes, size_t shift) : n_bytes_(n_bytes), shift_(shift) {
  note(cudaMalloc(reinterpret_cast<void**>(&memory_), n_bytes + shift + 2 * kGuard));
  poison();
}

DeviceArray::DeviceArray(const std::vector<float>& values, DType dtype, size_t shift)
    : DeviceArray(values.size() * csrm::kernels::cuda::dtype_bytes(dtype), shift) {
  copy_from(encoded(values, dtype).data());
}

DeviceArray::DeviceArray(const std::vector<int64_t>& values)
    : DeviceArray(values.size() * sizeof(int64_t)) {
  copy_from(values.data());
}

DeviceArray::~DeviceArray() { note(cudaFree(memory_)); }

void* DeviceArray::data() const { return n_bytes_ == 0 ? nullptr : memory_ + kGuard + shift_; }

void DeviceArray::poison() {
  if (memory_ != nullptr) note(cudaMemset(memory_, kPoison, n_bytes_ + shift_ + 2 * kGuard));
}

void DeviceArray::copy_from(const void* values) {
  if (n_bytes_ > 0 && memory_ != nullptr) {
    note(cudaMemcpy(data(), values, n_bytes_, cudaMemcpyHostToDevice));
  }
}

std::vector<unsigned char> DeviceArray::bytes() const {
  std::vector<unsigned char> out(n_bytes_);
  if (n_bytes_ > 0 && memory_ != nullptr) {
    note(cudaMemcpy(out.data(), data(), n_bytes_, cudaMemcpyDeviceToHost));
  }
  return out;
}

std::vector<float> DeviceArray::floats(DType dtype) const { return decoded(bytes(), dtype); }

bool DeviceArray::guards_intact() const {
  if (memory_ == nullptr) return true;
  std::vector<unsigned char> all(n_bytes_ + shift_ + 2 * kGuard);
  note(cudaMemcpy(all.data(), memory_, all.size(), cudaMemcpyDeviceToHost));
  const auto is_poison = [](unsigned char c) { return c == kPoison; };
  const auto begin = all.begin();
  return std::all_of(begin, begin + static_cast<std::ptrdiff_t>(kGuard + shift_), is_poison) &&
         std::all_of(all.end() - kGuard, all.end(), is_poison);
}

cudaError_t take_cuda_error() {
  note(cudaGetLastError());
  const cudaError_t error = first_error;
  first_error = cudaSuccess;
  return error;
}

bool synchronised() {
  note(cudaDeviceSynchronize());
  return first_error == cudaSuccess;
}

double relative_error(const std::vector<float>& out, const std::vector<float>& reference) {
  constexpr double kInfinite = std::numeric_limits<double>::infinity();
  if (out.size() != reference.size()) return kInfinite;
  double difference = 0, size = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    if (std::isnan(out[i]) != std::isnan(reference[i])) return kInfinite;
    if (std::isnan(out[i])) continue;
    const double d = static_cast<double>(out[i]) - reference[i];
    difference += d * d;
    size += static_cast<double>(reference[i]) * reference[i];
  }
  if (difference == 0) return 0;
  return size == 0 ? kInfinite : std::sqrt(difference / size);
}

double absolute_error(const std::vector<float>& out, const std::vector<float>& reference) {
  constexpr double kInfinite = std::numeric_limits<double>::infinity();
  if (out.size() != reference.size()) return kInfinite;
  double worst = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    if (std::isnan(out[i]) != std::isnan(reference[i])) return kInfinite;
    if (std::isnan(out[i])) continue;
    worst = std::max(worst, std::abs(static_cast<double>(out[i]) - reference[i]));
  }
  return worst;
}

void Report::error(const std::string& group, const std::string& name, double error, double bound) {
  ++n_checks;
  const bool is_bad = !(error <= bound);
  n_failures += is_bad;
  if (is_bad || is_verbose_) {
    std::printf("%s %s: %s: error %.3g, bound %.3g\n", is_bad ? "FAILED" : "ok", group.c_str(),
                name.c_str(), error, bound);
    std::fflush(stdout);
  }
  Group& g = groups_[group];
  ++g.n;
  if (g.n == 1 || !(error / bound <= g.worst / g.bound)) {
    g.worst = error;
    g.bound = bound;
    g.name = name;
  }
}

void Report::expect(const std::string& name, bool condition, const std::string& what) {
  ++n_checks;
  n_failures += !condition;
  if (condition && !is_verbose_) return;
  std::printf("%s %s: %s\n", condition ? "ok" : "FAILED", name.c_str(), what.c_str());
  std::fflush(stdout);
}

void Report::succeeds(const std::string& name, const csrm::Status& status) {
  expect(name, status.ok(), status.ok() ? "succeeds" : "succeeds, but: " + status.message);
}

void Report::print_groups() const {
  std::printf("%-34s %5s  %-9s %-9s %s\n", "error", "cases", "worst", "bound", "where");
  for (const auto& [name, g] : groups_) {
    std::printf("%-34s %5d  %-9.2e %-9.2e %s\n", name.c_str(), g.n, g.worst, g.bound,
                g.name.c_str());
  }
}

}  // namespace csrm_test
