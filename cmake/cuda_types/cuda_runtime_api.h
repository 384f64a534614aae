// The two CUDA types that TensorRT's headers name, for builds without NVIDIA's toolkit: what csrm
// compiles against them loads TensorRT and the driver at run time. Not: any function of CUDA.
// Used only where cmake/dependencies.cmake finds no toolkit.
#ifndef CSRM_CMAKE_CUDA_TYPES_CUDA_RUNTIME_API_H_
#define CSRM_CMAKE_CUDA_TYPES_CUDA_RUNTIME_API_H_

typedef struct CUstream_st* cudaStream_t;
typedef struct CUevent_st* cudaEvent_t;

#endif  // CSRM_CMAKE_CUDA_TYPES_CUDA_RUNTIME_API_H_
