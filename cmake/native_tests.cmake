# The C and C++ tests, one program each, run by ctest. Tests that score get the shipped model and
# ONNX Runtime's library, found as csrm.engine finds it: in the wheel of the Python interpreter.
# Without either they are skipped, and both CMake and ctest say so. Included with CSRM_BUILD_TESTS.

enable_language(C)
enable_testing()
set(CSRM_TEST_ARTIFACT ${CMAKE_CURRENT_SOURCE_DIR}/runtime/csrm/artifacts/csrm-mini
  CACHE PATH "Model folder for the tests that score")
set(CSRM_TEST_ENGINE_LIBRARY ""
  CACHE FILEPATH "libonnxruntime for the tests that score; empty = that of Python's onnxruntime")

set(engine_library ${CSRM_TEST_ENGINE_LIBRARY})
if(NOT engine_library)
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c "from importlib.util import find_spec; \
print(*(find_spec('onnxruntime').submodule_search_locations), sep=';')"
    OUTPUT_VARIABLE engine_folders OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  foreach(folder ${engine_folders})
    file(GLOB candidates ${folder}/capi/libonnxruntime.so* ${folder}/capi/libonnxruntime*.dylib)
    list(APPEND engine_library ${candidates})
  endforeach()
  if(engine_library)
    list(GET engine_library 0 engine_library)
  endif()
endif()
set(model_arguments ${CSRM_TEST_ARTIFACT} ${engine_library})
if(NOT EXISTS ${CSRM_TEST_ARTIFACT}/manifest.json OR NOT EXISTS "${engine_library}")
  set(model_arguments)
  message(WARNING "Tests that score will be SKIPPED: no model in CSRM_TEST_ARTIFACT "
    "(${CSRM_TEST_ARTIFACT}) or no ONNX Runtime library (CSRM_TEST_ENGINE_LIBRARY or the package "
    "onnxruntime of ${Python_EXECUTABLE})")
else()
  message(STATUS "Tests that score use ${CSRM_TEST_ARTIFACT} and ${engine_library}")
endif()

# NAME of the test, PROGRAM, then its arguments. 77 means skipped (tests/cpp/check.h).
function(csrm_add_test NAME PROGRAM)
  add_test(NAME ${NAME} COMMAND ${PROGRAM} ${ARGN})
  set_tests_properties(${NAME} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 1200)
  if(CSRM_SANITIZE)
    set_tests_properties(${NAME} PROPERTIES ENVIRONMENT
      "ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1;UBSAN_OPTIONS=print_stacktrace=1")
  endif()
endfunction()

foreach(name bound_engine c_abi c_api cuda_tiles decoder_kernels devices encoder_i8 engine
    engine_threads half job_queue json kernels linear_i8 phases prefix prefix_cache scheduler sha256
    stream tokenizer workers)
  add_executable(test_${name} tests/cpp/test_${name}.cc)
  target_link_libraries(test_${name} PRIVATE csrm_objects)
endforeach()
target_link_libraries(test_engine PRIVATE onnxruntime_headers)
target_link_libraries(test_engine_threads PRIVATE onnxruntime_headers)
target_link_libraries(test_bound_engine PRIVATE onnxruntime_headers)
target_link_libraries(test_devices PRIVATE onnxruntime_headers)
add_library(fake_cuda_driver MODULE tests/cpp/fake_cuda_driver.c)
set_target_properties(fake_cuda_driver PROPERTIES C_VISIBILITY_PRESET default)
target_link_libraries(test_prefix PRIVATE onnxruntime_headers)
# ThreadSanitizer does not see how the engine's own threads wait for each other, because their
# library is not built for it: there the engine has one. test_kernels runs tasks on several.
set(engine_threads 2)
if(CSRM_SANITIZE MATCHES thread)
  set(engine_threads 1)
endif()
target_compile_definitions(test_scheduler PRIVATE CSRM_ENGINE_THREADS=${engine_threads})
foreach(name cuda_tiles engine_threads job_queue json phases prefix prefix_cache sha256 tokenizer
    workers)
  csrm_add_test(${name} test_${name})
endforeach()
foreach(name bound_engine c_abi c_api engine scheduler stream)
  csrm_add_test(${name} test_${name} ${model_arguments})
endforeach()
csrm_add_test(devices test_devices $<TARGET_FILE:fake_cuda_driver> ${model_arguments})
foreach(isa portable avx2 avx512 amx)
  csrm_add_test(half_${isa} test_half ${isa})
  csrm_add_test(kernels_${isa} test_kernels ${isa})
  csrm_add_test(decoder_kernels_${isa} test_decoder_kernels ${isa})
  csrm_add_test(linear_i8_${isa} test_linear_i8 ${isa})
  csrm_add_test(encoder_i8_${isa} test_encoder_i8 ${isa})
endforeach()

# As a C program sees it: C99, and nothing but the shared library.
add_executable(test_c_scheduler tests/cpp/test_c_scheduler.c)
set_target_properties(test_c_scheduler PROPERTIES
  C_STANDARD 99 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF)
target_compile_options(test_c_scheduler PRIVATE -pedantic-errors)
target_include_directories(test_c_scheduler PRIVATE runtime/include)
target_link_libraries(test_c_scheduler PRIVATE csrm Threads::Threads)
csrm_add_test(c_scheduler test_c_scheduler ${model_arguments})

# The installed prefix: the examples built against it and run. The sanitizers' flags are not in it.
if(NOT CSRM_SANITIZE AND NOT SKBUILD)
  list(APPEND package_arguments -DBUILD=${CMAKE_CURRENT_BINARY_DIR}
    -DSOURCE=${CMAKE_CURRENT_SOURCE_DIR})
  if(model_arguments)
    list(APPEND package_arguments -DARTIFACT=${CSRM_TEST_ARTIFACT} -DENGINE=${engine_library})
  endif()
  add_test(NAME package COMMAND ${CMAKE_COMMAND} ${package_arguments}
    -P ${CMAKE_CURRENT_SOURCE_DIR}/tests/cpp/test_package.cmake)
  set_tests_properties(package PROPERTIES TIMEOUT 1200 SKIP_REGULAR_EXPRESSION "SKIPPED")
endif()
