#!/bin/sh
# Builds the CUDA kernels for this machine's GPU and checks and times them; needs nvcc, CMake and a
# C++ compiler, no Python. Arguments go to the program (tests/cpp/cuda/main.cc), for example
# --checks, --bench, --seed 7. SANITIZER=memcheck (racecheck, initcheck, synccheck) runs the small
# checks under compute-sanitizer instead. ARCH: the compute capability to build for, 90 by default.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=${BUILD:-$root/build/cuda}
generator=
if command -v ninja >/dev/null; then generator="-G Ninja"; fi
# shellcheck disable=SC2086  # two words or none
cmake -S "$root/kernels/cuda" -B "$build" $generator \
  -DCSRM_CUDA_ARCHITECTURES="${ARCH:-90}" >"/dev/null"
cmake --build "$build" --target cuda_kernels --parallel "${JOBS:-16}" >"$build/build.log" 2>&1 || {
  cat "$build/build.log"
  exit 1
}
if [ -n "${SANITIZER:-}" ]; then
  command -v compute-sanitizer >/dev/null || { echo "SKIPPED: no compute-sanitizer"; exit 0; }
  exec compute-sanitizer --tool "$SANITIZER" --error-exitcode 1 \
    "$build/cuda_kernels" --checks --small "$@"
fi
exec "$build/cuda_kernels" "$@"
