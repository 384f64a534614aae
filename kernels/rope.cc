// Argument checks of Rope. Not: arithmetic (rope_cpu.cc and rope_tile.h).
// Arguments come from ort_rope.cc or a C++ caller. Messages name numbers, never data.
#include "rope.h"

#include <cmath>
#include <string>

namespace csrm::kernels {
namespace {

Status bad_argument(const std::string& message) { return {Code::kBadArgument, "Rope: " + message}; }

}  // namespace

Status check_rope(const RopeParams& p, Isa isa) {
  if (p.head_dim < 2 || p.head_dim > kMaxRopeDim || p.head_dim % 2 != 0) {
    return bad_argument("head_dim is " + std::to_string(p.head_dim) +
                        "; it must be even and in 2 to " + std::to_string(kMaxRopeDim));
  }
  if (p.n_rows < 0 || p.n_heads < 1 || p.n_heads > p.n_columns / p.head_dim) {
    return bad_argument("x has " + std::to_string(p.n_rows) + " rows of " +
                        std::to_string(p.n_columns) + "; they must hold " +
                        std::to_string(p.n_heads) + " heads of " + std::to_string(p.head_dim) +
                        ", and at least one");
  }
  if (!std::isfinite(p.epsilon) || p.epsilon < 0) {
    return bad_argument("epsilon is " + std::to_string(p.epsilon) + "; it must be finite and >= 0");
  }
  if ((p.n_rows > 0 && (!p.x || !p.positions || !p.y)) || !p.frequencies) {
    return bad_argument("a pointer is null; give every array of RopeParams but weight");
  }
  return check_isa("Rope", isa);
}

}  // namespace csrm::kernels
