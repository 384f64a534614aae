// How many products of int8 the registers of this CPU make, for csrm bench, which says what
// fraction of it LinearI8 reaches. Not: an operator; no weight and no row is read.
#ifndef CSRM_KERNELS_INT8_PEAK_H_
#define CSRM_KERNELS_INT8_PEAK_H_

#include <cstdint>

#include "csrm/status.h"
#include "isa.h"

namespace csrm::kernels {

// Operations per second (two for a product and its sum) of the calling thread in the best of many
// short loops of nothing but the instructions that version `isa` of LinearI8 multiplies with, over
// `seconds`. Of 12-bit activations (kWordLevels) it counts what the caller wants, not what is
// executed: AMX multiplies both bytes of one, so its peak is half that of kByteLevels. Errors:
// Unsupported (`isa`, and the portable version, which has no such instruction), BadArgument
// (levels).
Result<double> int8_peak(Isa isa, int64_t levels, double seconds) noexcept;

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_INT8_PEAK_H_
