/* A stand-in for libcuda.so.1 over host memory, for test_devices.cc: the functions that csrm looks
 * up, by their names and with their arguments. FAKE_CUDA_GPUS in the environment is the number of
 * GPUs; a call after fake_cuda_fail(n) counts down and the n-th fails. Not: a GPU. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int calls_left = -1;
static int n_held = 0; /* allocations, streams and contexts */

void fake_cuda_fail(int n) { calls_left = n; }
int fake_cuda_held(void) { return n_held; }

static int outcome(void) {
  if (calls_left < 0) return 0;
  if (calls_left-- > 0) return 0;
  return 2; /* out of memory */
}

int cuInit(unsigned flags) { return flags == 0 ? 0 : 1; }
int cuDriverGetVersion(int* version) {
  *version = 13020;
  return 0;
}
int cuGetErrorName(int error, const char** name) {
  *name = error == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_UNKNOWN";
  return 0;
}
int cuGetErrorString(int error, const char** text) {
  *text = error == 2 ? "out of memory" : "unknown";
  return 0;
}
int cuDeviceGetCount(int* count) {
  const char* given = getenv("FAKE_CUDA_GPUS");
  *count = given != NULL ? atoi(given) : 1;
  return outcome();
}
int cuDeviceGet(int* device, int ordinal) {
  *device = 7 + ordinal;
  return outcome();
}
int cuDeviceGetName(char* name, int n_bytes, int device) {
  snprintf(name, (size_t)n_bytes, "Fake GPU %d", device);
  return outcome();
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  *value = attribute == 75 ? 9 : 0;
  return device == 7 ? outcome() : 101;
}
static int hold(int error, int change) {
  if (error == 0) n_held += change;
  return error;
}
int cuDevicePrimaryCtxRetain(void** context, int device) {
  int error = outcome();
  if (error == 0) *context = (void*)(intptr_t)device;
  return hold(error, 1);
}
int cuDevicePrimaryCtxRelease_v2(int device) { return hold(device == 7 ? 0 : 101, -1); }
int cuCtxSetCurrent(void* context) { return context != NULL ? outcome() : 201; }
int cuStreamCreate(void** stream, unsigned flags) {
  int error = outcome();
  if (error == 0) *stream = (void*)(intptr_t)(flags + 40);
  return hold(error, 1);
}
int cuStreamDestroy_v2(void* stream) { return hold(stream == (void*)41 ? 0 : 400, -1); }
int cuStreamSynchronize(void* stream) { return stream == (void*)41 ? outcome() : 400; }
int cuMemAlloc_v2(uint64_t* address, size_t n_bytes) {
  int error = outcome();
  if (error == 0) *address = (uint64_t)(uintptr_t)malloc(n_bytes);
  return hold(error, 1);
}
int cuMemFree_v2(uint64_t address) {
  free((void*)(uintptr_t)address);
  return hold(0, -1);
}
int cuMemHostAlloc(void** memory, size_t n_bytes, unsigned flags) {
  int error = flags == 3 ? outcome() : 1;
  if (error == 0) *memory = malloc(n_bytes);
  return hold(error, 1);
}
int cuMemFreeHost(void* memory) {
  free(memory);
  return hold(0, -1);
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t n_bytes, void* stream) {
  memcpy((void*)(uintptr_t)to, from, n_bytes);
  return stream == (void*)41 ? outcome() : 400;
}
int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t n_bytes, void* stream) {
  memcpy(to, (void*)(uintptr_t)from, n_bytes);
  return stream == (void*)41 ? outcome() : 400;
}
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t n_bytes, void* stream) {
  memmove((void*)(uintptr_t)to, (void*)(uintptr_t)from, n_bytes);
  return stream == (void*)41 ? outcome() : 400;
}
