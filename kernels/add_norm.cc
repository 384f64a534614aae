// Argument checks of AddNorm. Not: arithmetic (add_norm_cpu.cc and add_norm_tile.h).
// Arguments come from ort_add_norm.cc or a C++ caller. Messages name numbers, never data.
#include "add_norm.h"

#include <cmath>
#include <string>

namespace csrm::kernels {
namespace {

Status bad_argument(const std::string& message) {
  return {Code::kBadArgument, "AddNorm: " + message};
}

}  // namespace

Status check_add_norm(const AddNormParams& p, Isa isa) {
  if (p.n_rows < 0 || p.n_columns < 1) {
    return bad_argument("x has " + std::to_string(p.n_rows) + " rows of " +
                        std::to_string(p.n_columns) + "; rows must have >= 1 element");
  }
  if (!std::isfinite(p.epsilon) || p.epsilon < 0) {
    return bad_argument("epsilon is " + std::to_string(p.epsilon) + "; it must be finite and >= 0");
  }
  if ((p.n_rows > 0 && (!p.x || !p.y)) || !p.weight) {
    return bad_argument("a pointer is null; give x, y and weight of AddNormParams");
  }
  if (p.is_rms != (p.bias == nullptr)) {
    return bad_argument("LayerNorm needs a bias and RMSNorm has none");
  }
  if (p.sum != nullptr && p.residual == nullptr && p.n_rows > 0) {
    return bad_argument("nothing is added, so there is no sum; leave it out");
  }
  return check_isa("AddNorm", isa);
}

}  // namespace csrm::kernels
