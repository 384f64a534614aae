// What linear.cc and the versions of Linear's arithmetic agree on: how weights are packed and what
// one task computes. Internal to the kernel; linear.h is what others include.
#ifndef CSRM_KERNELS_LINEAR_BLOCK_H_
#define CSRM_KERNELS_LINEAR_BLOCK_H_

#include <cstdint>

namespace csrm::kernels {

// The rectangle of y that one task writes, and all it reads. Weights lie in panels of
// `panel_width` columns, each [K, panel_width], one after the other, either as floats or as int8;
// the last is filled up with zeros, as are scale and bias.
struct LinearBlock {
  const float* x;       // [M, K]
  const float* floats;  // [n_panels, K, panel_width], or null
  const int8_t* int8s;  // the same, or null
  const float* scale;   // [n_panels * panel_width]; ones when the weights are floats
  const float* bias;    // [n_panels * panel_width]
  float* y;             // [M, N]
  int64_t n_in;         // K
  int64_t n_out;        // N
  int64_t first_row, end_row;
  int64_t first_panel, end_panel;
  bool has_gelu;
};

// One version: how wide its panels are and what runs a block of them.
struct LinearVersion {
  int64_t panel_width;
  void (*run)(const LinearBlock& block);
};

extern const LinearVersion kLinearPortable;
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
extern const LinearVersion kLinearAvx2;
extern const LinearVersion kLinearAvx512;
#endif

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_LINEAR_BLOCK_H_
