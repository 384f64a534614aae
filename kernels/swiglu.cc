// Argument checks of SwiGlu. Not: arithmetic (swiglu_cpu.cc and swiglu_tile.h).
// Arguments come from ort_swiglu.cc or a C++ caller. Messages name numbers, never data.
#include "swiglu.h"

#include <string>

namespace csrm::kernels {

Status check_swiglu(const SwiGluParams& p, Isa isa) {
  if (p.n_rows < 0 || p.n_columns < 1) {
    return {Code::kBadArgument, "SwiGlu: y has " + std::to_string(p.n_rows) + " rows of " +
                                    std::to_string(p.n_columns) + "; rows must have >= 1 element"};
  }
  if (p.n_rows > 0 && (!p.x || !p.y)) {
    return {Code::kBadArgument, "SwiGlu: a pointer is null; give every array of SwiGluParams"};
  }
  return check_isa("SwiGlu", isa);
}

}  // namespace csrm::kernels
