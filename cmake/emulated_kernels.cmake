# csrm_emulated: the operators with the AVX-512 and AMX versions' sources over emulated intrinsics
# (tests/cpp/simd/), for a CPU with AVX2 only. It says that it has both, so that every test of the
# kernels runs those versions too. Built by name only (`make emulate-avx512`); never
# installed, and slow: nothing can be timed with it.
if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" OR MSVC)
  message(STATUS "Not x86-64 with GCC or Clang: no target csrm_emulated")
  return()
endif()

get_target_property(sources csrm_objects SOURCES)
list(FILTER sources INCLUDE REGEX "^kernels/")
add_library(csrm_emulated_objects OBJECT EXCLUDE_FROM_ALL ${sources} runtime/src/status.cc)
target_include_directories(csrm_emulated_objects
  PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}/runtime/include ${CMAKE_CURRENT_SOURCE_DIR}
  PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/tests/cpp/simd)
target_link_libraries(csrm_emulated_objects
  PUBLIC Threads::Threads
  PRIVATE onnxruntime_headers)
target_compile_definitions(csrm_emulated_objects
  PRIVATE CSRM_EMULATED_INTRINSICS="emulated_avx512.h")
# No other object takes or gives a vector of 512 bits, so it does not matter how they are passed.
target_compile_options(csrm_emulated_objects PRIVATE -O2 -Wno-psabi)

add_library(csrm_emulated SHARED EXCLUDE_FROM_ALL)
target_link_libraries(csrm_emulated PRIVATE csrm_emulated_objects)

foreach(name decoder_kernels encoder_i8 half kernels linear_i8)
  add_executable(test_${name}_emulated EXCLUDE_FROM_ALL tests/cpp/test_${name}.cc)
  target_link_libraries(test_${name}_emulated PRIVATE csrm_emulated_objects)
  add_dependencies(csrm_emulated test_${name}_emulated)
endforeach()
