# Third-party headers, never committed: ONNX Runtime's C/C++ API (MIT) and RapidJSON (MIT). When no
# include directory is given they are taken from packages pinned by sha256, fetched with pip into
# .deps/ once; later configurations need no network.

set(CSRM_DEPS_DIR ${CMAKE_CURRENT_SOURCE_DIR}/.deps CACHE PATH "Where fetched headers are kept")

# Fetches PACKAGE==VERSION (a wheel, or an sdist with --no-binary) with sha256 HASH, unpacks it under
# CSRM_DEPS_DIR and sets OUT_DIR to INNER inside it.
function(csrm_fetch_headers PACKAGE VERSION KIND HASH INNER OUT_DIR)
  set(folder ${CSRM_DEPS_DIR}/${PACKAGE}-${VERSION})
  if(NOT EXISTS ${folder}/.complete)
    message(STATUS "Fetching headers: ${PACKAGE} ${VERSION}")
    file(MAKE_DIRECTORY ${folder})
    set(requirement ${folder}/requirement.txt)
    file(WRITE ${requirement} "${PACKAGE}==${VERSION} --hash=sha256:${HASH}\n")
    if(KIND STREQUAL "sdist")
      set(kind_option --no-binary :all:)
    else()
      set(kind_option --only-binary :all: --platform any --implementation py --abi none)
    endif()
    # An isolated build environment has no pip of its own: take the base interpreter's then.
    execute_process(
      COMMAND ${Python_EXECUTABLE} ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/fetch_package.py
        --requirement ${requirement} --folder ${folder} -- ${kind_option}
      RESULT_VARIABLE failed)
    if(failed)
      message(FATAL_ERROR "Cannot fetch the headers in ${PACKAGE} ${VERSION}. Without a network give "
        "-DONNXRUNTIME_INCLUDE_DIR=... and -DRAPIDJSON_INCLUDE_DIR=...")
    endif()
    file(TOUCH ${folder}/.complete)
  endif()
  set(${OUT_DIR} ${folder}/${INNER} PARENT_SCOPE)
endfunction()

if(NOT ONNXRUNTIME_INCLUDE_DIR)
  csrm_fetch_headers(amd-quark 0.13 wheel
    3b3e58a4cbbcff20d27815b641aa4de4d698efde3c782306cb4a6a05bcf55c8c
    quark/onnx/operators/custom_ops/include/onnxruntime-1.17.0/onnxruntime/core/session
    ONNXRUNTIME_INCLUDE_DIR)
endif()
if(NOT RAPIDJSON_INCLUDE_DIR)
  csrm_fetch_headers(python-rapidjson 1.25 sdist
    97c1de449552ec28ac5ae89350c2b53e4c5d21a9b4308d7a1630b1099e5db9fc
    python_rapidjson-1.25/rapidjson/include
    RAPIDJSON_INCLUDE_DIR)
endif()

add_library(onnxruntime_headers INTERFACE)
target_include_directories(onnxruntime_headers SYSTEM INTERFACE ${ONNXRUNTIME_INCLUDE_DIR})
add_library(rapidjson_headers INTERFACE)
target_include_directories(rapidjson_headers SYSTEM INTERFACE ${RAPIDJSON_INCLUDE_DIR})

# TensorRT's headers (Apache-2.0), for the engine and the plugins; compiled against, never linked.
if(CSRM_TENSORRT)
  if(NOT TENSORRT_INCLUDE_DIR)
    csrm_fetch_headers(kernel-lens 2.0.1 wheel
      07cc714e8b5e7f34b672f7c7fad93febe7c747be5837ba276b1527370134ffe0
      kernel_lens/include/tensorrt
      TENSORRT_INCLUDE_DIR)
  endif()
  if(NOT EXISTS ${TENSORRT_INCLUDE_DIR}/NvInfer.h)
    message(FATAL_ERROR "No NvInfer.h in ${TENSORRT_INCLUDE_DIR}; set TENSORRT_INCLUDE_DIR")
  endif()
  add_library(tensorrt_headers INTERFACE)
  target_include_directories(tensorrt_headers SYSTEM INTERFACE ${TENSORRT_INCLUDE_DIR})
  find_package(CUDAToolkit QUIET)
  if(CUDAToolkit_FOUND)
    target_include_directories(tensorrt_headers SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS})
  else()
    target_include_directories(tensorrt_headers SYSTEM
      INTERFACE ${CMAKE_CURRENT_LIST_DIR}/cuda_types)
  endif()
endif()
