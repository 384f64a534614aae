// What the case tables of csrm.kernels hold (kernels/cases*.py), for the C++ checks of the CUDA
// kernels. Not: inputs, which checks draw from a seed.
#ifndef CSRM_TESTS_CPP_CUDA_CASES_H_
#define CSRM_TESTS_CPP_CUDA_CASES_H_

namespace csrm_test {

// How many own tokens a query sees: all of them, one more each, those up to the end of its turn of
// 21 tokens (the row ends in padding that sees nothing), any number, or none.
enum class Sight { kAll, kCausal, kTurns, kRandom, kNone };
enum class Pooling { kRandom, kNone, kMixed, kRepeated };

struct AttentionCase {
  const char* name;
  int batch, queries, tokens, prefix;
  int heads, kv_heads, head_dim, layers, layer;
  bool is_fused;  // queries and keys are columns of one tensor
  Sight sight;
  float loudness;  // of the queries
};

struct RewardHeadCase {
  const char* name;
  int batch, tokens, pooled, hidden, verbalizers, n_safe;
  Pooling pooling;
  float size, offset;  // of the states
  float logit_scale, epsilon;
  float tolerance;  // of fp32, absolute
  bool is_rms = false;
};

struct AddNormCase {
  const char* name;
  int rows, columns;
  float size, offset;
  float epsilon;
  float tolerance;  // of fp32, absolute
  bool is_rms = false, adds = true;
};

struct RopeCase {
  const char* name;
  int rows, heads, head_dim;
  int rest;  // columns behind the heads
  int most;  // of the positions
  bool has_norm;
  float epsilon;
  float tolerance;  // of fp32, absolute
};

struct SwiGluCase {
  const char* name;
  int rows, columns;  // of the result
  float size;         // of the elements
  float tolerance;    // of fp32, absolute
};

struct KeysValuesCase {
  const char* name;
  int layers, batch, tokens;
  int heads, kv_heads, head_dim;  // queries' heads come first in the states
  int shift = 0;                  // elements that states begin off their alignment
};

#include "tests/golden/kernel_cases.h"

}  // namespace csrm_test

#endif  // CSRM_TESTS_CPP_CUDA_CASES_H_
