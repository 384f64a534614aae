// fp32 to IEEE half (fp16) on the CPU, for prefixes that go to a device as fp16.
// Not: arithmetic in fp16, which only kernels do.
#ifndef CSRM_SRC_HALF_FLOATS_H_
#define CSRM_SRC_HALF_FLOATS_H_

#include <cstddef>
#include <cstdint>

namespace csrm {

// The bits of the nearest half, ties to even; infinite from 65520 on. NaN stays NaN.
uint16_t half_bits(float x);

// half_bits of each of `n`.
void to_half(const float* from, size_t n, uint16_t* to);

}  // namespace csrm

#endif  // CSRM_SRC_HALF_FLOATS_H_
