#!/bin/sh
# Everything that needs a GPU, in one go of a few minutes: kernels, operators, parity of 500 inputs with
# fp32 on the CPU, equal bits, latency beside other engines. Run it from a checkout on a machine with
# an NVIDIA GPU, nvcc, CMake and a Python that has csrm's needs (onnxruntime-gpu, torch, onnx, numpy,
# click, rich, pyyaml, pybind11). Not: an installation; it builds into build/gpu and runs from there.
# CMAKE_ARGS: more options, e.g. where headers are on a machine without a network (-D...INCLUDE_DIR).
# OUT: folder for results, build/gpu/results by default. ARCH: compute capability, the GPU's own by
# default. QUICK=1: a quarter of the inputs and rounds. Exit status: 0, 1 a check failed, 77 no GPU.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=$root/build/gpu
out=${OUT:-$build/results}
python=${PYTHON:-python3}
n_tests=4 # kernels, parity, latency of two batch sizes
mkdir -p "$out"
if ! nvidia-smi -L >"$out/gpu.txt" 2>&1; then
  echo "SKIPPED: $n_tests GPU tests, no GPU (nvidia-smi: $(head -n 1 "$out/gpu.txt"))"
  exit 77
fi
cat "$out/gpu.txt"
arch=${ARCH:-$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)}
n=500 rounds=60
if [ -n "${QUICK:-}" ]; then n=125 rounds=15; fi
generator=
if command -v ninja >/dev/null; then generator="-G Ninja"; fi

# shellcheck disable=SC2086  # several words or none
cmake -S "$root" -B "$build" $generator ${CMAKE_ARGS:-} -DCSRM_BUILD_CUDA=ON -DCSRM_BUILD_PYTHON=ON \
  -DCSRM_BUILD_TESTS=ON -DCSRM_CUDA_ARCHITECTURES="$arch" -DPython_EXECUTABLE="$(command -v "$python")" \
  -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" >"$out/configure.txt" 2>&1 || {
  cat "$out/configure.txt"
  exit 1
}
cmake --build "$build" --parallel "${JOBS:-16}" \
  --target csrm _core csrm_cuda_operators cuda_kernels >"$out/build.txt" 2>&1 || {
  tail -n 40 "$out/build.txt"
  exit 1
}

# csrm as a package out of the checkout, as a wheel would lay it out.
package=$build/package/csrm
rm -rf "$build/package"
mkdir -p "$package/lib"
for part in "$root"/runtime/csrm/*; do ln -s "$part" "$package/"; done
for part in train export kernels bench; do ln -s "$root/$part" "$package/$part"; done
ln -s "$build"/_core*.so "$package/"
ln -s "$build/libcsrm.so" "$build/kernels/cuda/libcsrm_cuda.so" "$package/lib/"
export PYTHONPATH="$build/package${PYTHONPATH:+:$PYTHONPATH}"

failed=0
check() { # NAME COMMAND...: its output on the screen and in NAME.txt
  name=$1
  shift
  echo "== $name"
  status=0
  "$@" >"$out/$name.txt" 2>&1 || status=$?
  tail -n 40 "$out/$name.txt"
  if [ "$status" -ne 0 ]; then
    echo "FAILED: $name (status $status)"
    failed=1
  fi
}
cd "$root"
check info "$python" -m csrm info
check kernels "$build/kernels/cuda/cuda_kernels" --checks --small
if [ -n "${DECODER:-}" ]; then # a decoder's artifact, whose parity is checked too
  check decoder_parity "$python" -m csrm.bench.gpu_parity --model "$DECODER" --n 70
fi
check parity "$python" -m csrm.bench.gpu_parity --configs "$root/configs" --n "$n"
check latency "$python" -m csrm bench latency --device cuda --case 256+128 --case 1024+128 \
  --case 4096+128 --rounds "$rounds" --json "$out/latency.json"
check latency_batch "$python" -m csrm bench latency --device cuda --case 256+128 --batch 8 \
  --batch 64 --rounds "$rounds" --json "$out/latency_batch.json"
exit $failed
