#!/bin/sh
# Everything that needs a GPU, in one go of a few minutes: kernels, operators, parity of 500 inputs
# with fp32 on the CPU, equal bits, latency beside other engines of the shipped model and of larger
# shapes with random weights. Run it from a checkout on a machine with an NVIDIA GPU, nvcc, CMake and
# a Python that has csrm's needs (onnxruntime-gpu, torch, onnx, numpy, click, rich, pyyaml, pybind11).
# Not: an installation; it builds into build/gpu and runs from there.
# CMAKE_ARGS: more options, e.g. where headers are on a machine without a network (-D...INCLUDE_DIR).
# OUT: folder for results, build/gpu/results by default. ARCH: compute capability, the GPU's own by
# default. QUICK=1: a quarter of the inputs and rounds. SHAPES: other shapes ("" for none).
# FULL=1: all shapes, configs of 256, 1,024 and 4,096 tokens, batches of 1, 8 and 64; hours.
# BUDGET_S: a shape is not begun when its usual time would end later than so many seconds after the
# start (480; FULL: no end), and that is said aloud. SHAPES_DIR: where random models are kept.
# Exit status: 0, 1 a check failed, 77 no GPU.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=$root/build/gpu
out=${OUT:-$build/results}
python=${PYTHON:-python3}
shapes=${SHAPES-llama3-8b smollm2-135m qwen2.5-0.5b} # that of the targets first
budget=${BUDGET_S:-480}
if [ -n "${FULL:-}" ]; then
  shapes=${SHAPES-minilm-l6 mpnet-base smollm2-135m qwen2.5-0.5b qwen2.5-1.5b llama3-8b}
  budget=${BUDGET_S:-86400}
fi
# shellcheck disable=SC2086  # several words
n_tests=$((3 + $(set -- $shapes && echo $#))) # kernels, parity, latency of csrm-mini and each shape
begun=$(date +%s)
mkdir -p "$out"
if ! nvidia-smi -L >"$out/gpu.txt" 2>&1; then
  echo "SKIPPED: $n_tests GPU tests, no GPU (nvidia-smi: $(head -n 1 "$out/gpu.txt"))"
  exit 77
fi
cat "$out/gpu.txt"
arch=${ARCH:-$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)}
n=500 rounds=40
if [ -n "${QUICK:-}" ]; then n=125 rounds=10; fi
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
# Copies: csrm looks for its operators beside the file that a link leads to.
cp "$build"/_core*.so "$package/"
cp "$build/libcsrm.so" "$build/kernels/cuda/libcsrm_cuda.so" "$package/lib/"
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
cases="--case 256+128 --case 4096+128" batches="--batch 1"
shape_cases="--case 4096+128"
if [ -n "${FULL:-}" ]; then
  cases="--case 256+128 --case 1024+128 --case 4096+128"
  batches="--batch 1 --batch 8 --batch 64"
  shape_cases=$cases
fi
# shellcheck disable=SC2086  # several words
check latency "$python" -m csrm bench latency --device cuda $cases $batches --rounds "$rounds" \
  --json "$out/latency.json"

usual_s() { # SHAPE: about how long its one case takes, engines' start and compilation included
  case $1 in
    llama3-8b) echo 170 ;;
    *) echo 65 ;;
  esac
}
engines_of() { # SHAPE: ONNX Runtime's graph of 8 billion weights takes minutes to unfold
  case $1 in
    llama3-8b) echo "--engines pytorch-eager-cuda --engines torch-compile-cuda" ;;
    *) echo "--engines installed" ;;
  esac
}
for shape in $shapes; do
  left=$((budget - $(date +%s) + begun))
  if [ "$(usual_s "$shape")" -gt "$left" ]; then
    echo "SKIPPED: latency of $shape, which takes about $(usual_s "$shape") s; $left s are left"
    continue
  fi
  # shellcheck disable=SC2046,SC2086  # several words
  check "latency_$shape" "$python" -m csrm bench latency --device cuda --shape "$shape" \
    --shape-folder "${SHAPES_DIR:-$build/shapes}" $(engines_of "$shape") $shape_cases $batches \
    --rounds "$((rounds / 2))" --json "$out/latency_$shape.json"
done
exit $failed
