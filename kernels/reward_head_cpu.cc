// RewardHead on the CPU. For each (b, j), with t = pooled_at[b, j] and x = hidden[b, t]:
//   y = LayerNorm(x) * norm_weight + norm_bias          (biased variance), or RMSNorm(x)
//   z = rows . y + row_bias
//   reward = logsumexp(z[:n_safe]) - logsumexp(z[n_safe:]);  compliance = sigmoid(a * reward + b)
//
// The ladder; ns per pooled token at H = 384 for V = 2 / V = 12 (Zen 5, gcc 12 -O2, states in L2):
//   1. one running sum per pass: 860 / 2960. Each addition waits for the one before it.
//   2. eight partial sums in plain C++: 350 / 1650. The compiler may put them in vectors of any
//      machine (SSE, NEON). This is the portable version.
//   3. AVX2 intrinsics, four sums per pass: 136 / 519. FMA, and no lane leaves its register.
//   4. up to four verbalizer rows at once: 98 / 288. y is made in registers once per four rows, and
//      four sums hide the latency of FMA. Needs the loop over rows unrolled. This is the AVX2 one.
//   5. AVX-512 with a mask on every load: 97 / 270. Making the masks eats most of the gain.
//   6. AVX-512, whole vectors and then one masked tail: 75 / 239. This is the AVX-512 version.
// Not done: one pass for mean and variance (cancels when the mean is large), threads (a batch of 32
// takes 3 to 13 us by version). No y is stored, so no scratch memory is needed.
// One (b, j) at a time, in an order fixed per version: a result never depends on its batch.
#include <algorithm>
#include <cmath>
#include <limits>

#include "reward_head.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define CSRM_REWARD_HEAD_X86 1
#include "intrinsics.h"
#else
#define CSRM_REWARD_HEAD_X86 0
#endif

namespace csrm::kernels {
namespace {

// Writes the V logits z of one pooled token x [H].
using Logits = void (*)(const RewardHeadParams& p, const float* x, float* z);

constexpr int kLanes = 8;

float sum_lanes(const float* lanes) {
  float sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += lanes[i];
  return sum;
}

template <bool kIsRms>
void logits_portable(const RewardHeadParams& p, const float* x, float* z) {
  const int64_t n = p.n_hidden;
  const int64_t body = n - n % kLanes;
  float lanes[kLanes] = {};
  float mean = 0;  // RMSNorm takes none off
  if (!kIsRms) {
    for (int64_t h = 0; h < body; h += kLanes) {
      for (int i = 0; i < kLanes; ++i) lanes[i] += x[h + i];
    }
    for (int64_t h = body; h < n; ++h) lanes[h - body] += x[h];
    mean = sum_lanes(lanes) / static_cast<float>(n);
  }

  std::fill(lanes, lanes + kLanes, 0.0f);
  for (int64_t h = 0; h < body; h += kLanes) {
    for (int i = 0; i < kLanes; ++i) lanes[i] += (x[h + i] - mean) * (x[h + i] - mean);
  }
  for (int64_t h = body; h < n; ++h) lanes[h - body] += (x[h] - mean) * (x[h] - mean);
  const float scale = 1.0f / std::sqrt(sum_lanes(lanes) / static_cast<float>(n) + p.epsilon);

  for (int64_t v = 0; v < p.n_verbalizers; ++v) {
    const float* row = p.rows + v * n;
    std::fill(lanes, lanes + kLanes, 0.0f);
    for (int64_t h = 0; h < body; h += kLanes) {
      for (int i = 0; i < kLanes; ++i) {
        const float y = (x[h + i] - mean) * scale * p.norm_weight[h + i];
        lanes[i] += row[h + i] * (kIsRms ? y : y + p.norm_bias[h + i]);
      }
    }
    for (int64_t h = body; h < n; ++h) {
      const float y = (x[h] - mean) * scale * p.norm_weight[h];
      lanes[h - body] += row[h] * (kIsRms ? y : y + p.norm_bias[h]);
    }
    z[v] = sum_lanes(lanes);
  }
}

#if CSRM_REWARD_HEAD_X86

#define CSRM_AVX2 CSRM_TARGET_OF("avx2,fma")
#define CSRM_AVX512 CSRM_TARGET_OF("avx512f,avx2,fma")
// Without it gcc keeps the arrays of R accumulators in memory at -O2.
#define CSRM_UNROLL _Pragma("GCC unroll 4")

CSRM_AVX2 inline float sum_avx2(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

// R rows of verbalizers at once: y is made once in registers and used R times.
template <int R, bool kIsRms>
CSRM_AVX2 void dot_avx2(const RewardHeadParams& p, const float* x, const float* rows, float mean,
                        float scale, float* z) {
  const int64_t n = p.n_hidden;
  const __m256 means = _mm256_set1_ps(mean), scales = _mm256_set1_ps(scale);
  __m256 sums[R];
  CSRM_UNROLL
  for (int r = 0; r < R; ++r) sums[r] = _mm256_setzero_ps();
  int64_t h = 0;
  for (; h + 8 <= n; h += 8) {
    const __m256 d = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(x + h), means), scales);
    const __m256 weights = _mm256_loadu_ps(p.norm_weight + h);
    const __m256 y = kIsRms ? _mm256_mul_ps(d, weights)
                            : _mm256_fmadd_ps(d, weights, _mm256_loadu_ps(p.norm_bias + h));
    CSRM_UNROLL
    for (int r = 0; r < R; ++r) {
      sums[r] = _mm256_fmadd_ps(y, _mm256_loadu_ps(rows + r * n + h), sums[r]);
    }
  }
  CSRM_UNROLL
  for (int r = 0; r < R; ++r) z[r] = sum_avx2(sums[r]);
  for (; h < n; ++h) {
    float y = (x[h] - mean) * scale * p.norm_weight[h];
    if (!kIsRms) y += p.norm_bias[h];
    CSRM_UNROLL
    for (int r = 0; r < R; ++r) z[r] += y * rows[r * n + h];
  }
}

template <bool kIsRms>
CSRM_AVX2 void logits_avx2(const RewardHeadParams& p, const float* x, float* z) {
  const int64_t n = p.n_hidden;
  __m256 a = _mm256_setzero_ps(), b = a, c = a, d = a;
  int64_t h = 0;
  float mean = 0;  // RMSNorm takes none off
  if (!kIsRms) {
    for (; h + 32 <= n; h += 32) {
      a = _mm256_add_ps(a, _mm256_loadu_ps(x + h));
      b = _mm256_add_ps(b, _mm256_loadu_ps(x + h + 8));
      c = _mm256_add_ps(c, _mm256_loadu_ps(x + h + 16));
      d = _mm256_add_ps(d, _mm256_loadu_ps(x + h + 24));
    }
    mean = sum_avx2(_mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d)));
    for (; h < n; ++h) mean += x[h];
    mean /= static_cast<float>(n);
  }

  const __m256 means = _mm256_set1_ps(mean);
  a = b = c = d = _mm256_setzero_ps();
  for (h = 0; h + 32 <= n; h += 32) {
    const __m256 da = _mm256_sub_ps(_mm256_loadu_ps(x + h), means);
    const __m256 db = _mm256_sub_ps(_mm256_loadu_ps(x + h + 8), means);
    const __m256 dc = _mm256_sub_ps(_mm256_loadu_ps(x + h + 16), means);
    const __m256 dd = _mm256_sub_ps(_mm256_loadu_ps(x + h + 24), means);
    a = _mm256_fmadd_ps(da, da, a);
    b = _mm256_fmadd_ps(db, db, b);
    c = _mm256_fmadd_ps(dc, dc, c);
    d = _mm256_fmadd_ps(dd, dd, d);
  }
  float squares = sum_avx2(_mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d)));
  for (; h < n; ++h) squares += (x[h] - mean) * (x[h] - mean);
  const float scale = 1.0f / std::sqrt(squares / static_cast<float>(n) + p.epsilon);

  int64_t v = 0;
  for (; v + 4 <= p.n_verbalizers; v += 4) {
    dot_avx2<4, kIsRms>(p, x, p.rows + v * n, mean, scale, z + v);
  }
  for (; v + 2 <= p.n_verbalizers; v += 2) {
    dot_avx2<2, kIsRms>(p, x, p.rows + v * n, mean, scale, z + v);
  }
  if (v < p.n_verbalizers) dot_avx2<1, kIsRms>(p, x, p.rows + v * n, mean, scale, z + v);
}

// Through memory: gcc 12's headers for the reduction warn about themselves (gcc bug 105593).
CSRM_AVX512 inline float sum_avx512(__m512 v) {
  alignas(64) float lanes[16];
  _mm512_store_ps(lanes, v);
  return sum_avx2(_mm256_add_ps(_mm256_load_ps(lanes), _mm256_load_ps(lanes + 8)));
}

template <int R, bool kIsRms>
CSRM_AVX512 void dot_avx512(const RewardHeadParams& p, const float* x, const float* rows,
                            float mean, float scale, float* z) {
  const int64_t n = p.n_hidden;
  const __m512 means = _mm512_set1_ps(mean), scales = _mm512_set1_ps(scale);
  __m512 sums[R];
  CSRM_UNROLL
  for (int r = 0; r < R; ++r) sums[r] = _mm512_setzero_ps();
  int64_t h = 0;
  for (; h + 16 <= n; h += 16) {
    const __m512 d = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(x + h), means), scales);
    const __m512 weights = _mm512_loadu_ps(p.norm_weight + h);
    const __m512 y = kIsRms ? _mm512_mul_ps(d, weights)
                            : _mm512_fmadd_ps(d, weights, _mm512_loadu_ps(p.norm_bias + h));
    CSRM_UNROLL
    for (int r = 0; r < R; ++r) {
      sums[r] = _mm512_fmadd_ps(y, _mm512_loadu_ps(rows + r * n + h), sums[r]);
    }
  }
  if (h < n) {
    const auto k = static_cast<__mmask16>((1u << (n - h)) - 1u);
    const __m512 d = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(k, x + h), means), scales);
    const __m512 weights = _mm512_maskz_loadu_ps(k, p.norm_weight + h);
    const __m512 y = kIsRms
                         ? _mm512_mul_ps(d, weights)
                         : _mm512_fmadd_ps(d, weights, _mm512_maskz_loadu_ps(k, p.norm_bias + h));
    CSRM_UNROLL
    for (int r = 0; r < R; ++r) {
      sums[r] = _mm512_fmadd_ps(y, _mm512_maskz_loadu_ps(k, rows + r * n + h), sums[r]);
    }
  }
  CSRM_UNROLL
  for (int r = 0; r < R; ++r) z[r] = sum_avx512(sums[r]);
}

template <bool kIsRms>
CSRM_AVX512 void logits_avx512(const RewardHeadParams& p, const float* x, float* z) {
  const int64_t n = p.n_hidden;
  __m512 a = _mm512_setzero_ps(), b = a;
  int64_t h = 0;
  float mean = 0;
  if (!kIsRms) {
    for (; h + 32 <= n; h += 32) {
      a = _mm512_add_ps(a, _mm512_loadu_ps(x + h));
      b = _mm512_add_ps(b, _mm512_loadu_ps(x + h + 16));
    }
    mean = sum_avx512(_mm512_add_ps(a, b));
    for (; h < n; ++h) mean += x[h];
    mean /= static_cast<float>(n);
  }

  const __m512 means = _mm512_set1_ps(mean);
  a = b = _mm512_setzero_ps();
  for (h = 0; h + 32 <= n; h += 32) {
    const __m512 da = _mm512_sub_ps(_mm512_loadu_ps(x + h), means);
    const __m512 db = _mm512_sub_ps(_mm512_loadu_ps(x + h + 16), means);
    a = _mm512_fmadd_ps(da, da, a);
    b = _mm512_fmadd_ps(db, db, b);
  }
  float squares = sum_avx512(_mm512_add_ps(a, b));
  for (; h < n; ++h) squares += (x[h] - mean) * (x[h] - mean);
  const float scale = 1.0f / std::sqrt(squares / static_cast<float>(n) + p.epsilon);

  int64_t v = 0;
  for (; v + 4 <= p.n_verbalizers; v += 4) {
    dot_avx512<4, kIsRms>(p, x, p.rows + v * n, mean, scale, z + v);
  }
  for (; v + 2 <= p.n_verbalizers; v += 2) {
    dot_avx512<2, kIsRms>(p, x, p.rows + v * n, mean, scale, z + v);
  }
  if (v < p.n_verbalizers) dot_avx512<1, kIsRms>(p, x, p.rows + v * n, mean, scale, z + v);
}

#endif  // CSRM_REWARD_HEAD_X86

template <bool kIsRms>
Logits logits_of(Isa isa) noexcept {
  switch (vector_isa(isa)) {
#if CSRM_REWARD_HEAD_X86
    case Isa::kAvx512:
      return logits_avx512<kIsRms>;
    case Isa::kAvx2:
      return logits_avx2<kIsRms>;
#endif
    default:
      return logits_portable<kIsRms>;
  }
}

float logsumexp(const float* z, int64_t n) {
  if (n == 1) return z[0];
  const float top = *std::max_element(z, z + n);
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(z[i] - top);
  return top + std::log(sum);
}

}  // namespace

void reward_head_cpu(const RewardHeadParams& p, Isa isa) noexcept {
  const Logits logits = p.is_rms ? logits_of<true>(isa) : logits_of<false>(isa);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  float z[kMaxVerbalizers];
  for (int64_t i = 0; i < p.n_batch * p.n_pooled; ++i) {
    const int64_t t = p.pooled_at[i];
    if (t < 0) {
      p.reward[i] = p.compliance[i] = nan;
      continue;
    }
    logits(p, p.hidden + (i / p.n_pooled * p.n_tokens + t) * p.n_hidden, z);
    for (int64_t v = 0; p.row_bias != nullptr && v < p.n_verbalizers; ++v) z[v] += p.row_bias[v];
    const float reward =
        logsumexp(z, p.n_safe) - logsumexp(z + p.n_safe, p.n_verbalizers - p.n_safe);
    p.reward[i] = reward;
    p.compliance[i] = 1.0f / (1.0f + std::exp(-(p.calibration[0] * reward + p.calibration[1])));
  }
}

}  // namespace csrm::kernels
