// What this GPU can do at most, measured: the ceilings that cuda_kernels' table is read against.
// Not: a data sheet's figures.
#ifndef CSRM_TESTS_CPP_CUDA_CEILINGS_H_
#define CSRM_TESTS_CPP_CUDA_CEILINGS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

namespace csrm_test {

// Each enqueues work on `stream`; `sink` is one float of device memory, never written in fact.
// The functions tell how much work it was.
int64_t launch_multiply_adds(int n_processors, float* sink, cudaStream_t stream);  // flops
int64_t launch_powers(int n_processors, float* sink, cudaStream_t stream);         // 2^x

}  // namespace csrm_test

#endif  // CSRM_TESTS_CPP_CUDA_CEILINGS_H_
