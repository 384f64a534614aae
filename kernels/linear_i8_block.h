// What linear_i8.cc, linear_i8_cpu.cc and the versions of LinearI8's arithmetic agree on: how
// weights are packed, how rows are rounded and what one task computes. Internal to the kernel.
#ifndef CSRM_KERNELS_LINEAR_I8_BLOCK_H_
#define CSRM_KERNELS_LINEAR_I8_BLOCK_H_

#include <cstdint>

#include "linear_cut.h"

namespace csrm::kernels {

// Rows [first_row, end_row) of x, rounded.
struct RoundedRows {
  const float* x;    // [M, K]
  float* scale;      // [M] out
  char* values;      // [M, row_size] bytes out
  int64_t n_in;      // K
  int64_t row_size;  // an odd number of cache lines: no two rows compete for the same sets
  int64_t first_row, end_row;
};

// The rectangle of y that one task writes, and all it reads. A panel holds, for each group of
// `group` values of k, all its columns' weights of that group; behind K come zeros, as behind N, so
// that what a row of x holds behind K does not matter.
struct LinearI8Block {
  const char* x;         // [M, row_size] bytes, as RoundedRows leaves them
  const float* x_scale;  // [M]
  const int8_t* values;  // [n_panels, n_groups, panel_width, group]
  const int32_t* start;  // [n_panels * panel_width] what a sum starts from
  const float* scale;    // [n_panels * panel_width]
  const float* bias;     // [n_panels * panel_width]
  float* y;              // [M, N]
  int64_t n_panels;
  int64_t n_groups;  // of K, rounded up to the version's depth
  int64_t row_size;
  int64_t n_out;
  int64_t first_row, end_row;
  int64_t first_panel, end_panel;
  bool has_gelu;
};

// One version: its packing and what rounds rows and multiplies a block.
struct LinearI8Version {
  int64_t panel_width;
  int64_t group;
  int64_t depth;       // values of k that it takes at once: a number of groups
  int64_t value_size;  // bytes of a rounded value
  int32_t offset;      // added to every rounded value; the sums start lower for it
  LinearPace pace;
  void (*round)(const RoundedRows& rows, int64_t levels);
  void (*run)(const LinearI8Block& block);
};

extern const LinearI8Version kLinearI8Portable;
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
extern const LinearI8Version kLinearI8Avx2;
extern const LinearI8Version kLinearI8Avx512Words;
extern const LinearI8Version kLinearI8Avx512Bytes;
extern const LinearI8Version kLinearI8AmxWords;  // these two where CSRM_HAS_AMX
extern const LinearI8Version kLinearI8AmxBytes;
#endif

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_LINEAR_I8_BLOCK_H_
