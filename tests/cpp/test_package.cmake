# The installed prefix as a user's project sees it: cmake --install, the prefix moved elsewhere, the
# gateway filters built by find_package and by plain cc and c++ with pkg-config's flags, and both
# run. Not: the wheel, nor agreement with Python (tests/python/test_c_package.py).
#
#   cmake -DBUILD=build/cpp -DSOURCE=. -DARTIFACT=... -DENGINE=... -P tests/cpp/test_package.cmake
cmake_minimum_required(VERSION 3.24)

set(work ${BUILD}/package)
file(REMOVE_RECURSE ${work})

function(run WHAT)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE status OUTPUT_VARIABLE text ERROR_VARIABLE text)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${WHAT} failed (${status}):\n${text}")
  endif()
endfunction()

run("the install" ${CMAKE_COMMAND} --install ${BUILD} --prefix ${work}/built)
file(RENAME ${work}/built "${work}/moved here")
set(prefix "${work}/moved here")
file(GLOB_RECURSE libraries "${prefix}/libcsrm.so")
list(LENGTH libraries n_libraries)
if(NOT n_libraries EQUAL 1)
  message(FATAL_ERROR "The prefix holds ${n_libraries} libraries: ${libraries}")
endif()
cmake_path(GET libraries PARENT_PATH libdir)

run("find_package: configuring" ${CMAKE_COMMAND} -S ${SOURCE}/docs/examples -B ${work}/examples
  "-DCMAKE_PREFIX_PATH=${prefix}" -DCMAKE_BUILD_TYPE=Release
  "-DCMAKE_C_FLAGS=-Wall -Wextra -Werror -pedantic"
  "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror -pedantic")
run("find_package: building" ${CMAKE_COMMAND} --build ${work}/examples)
set(programs ${work}/examples/gateway_filter_c ${work}/examples/gateway_filter_cc)

find_program(pkg_config NAMES pkg-config pkgconf)
if(pkg_config)
  # The loader does not search a prefix in an unusual place; a user would name it as here.
  set(ENV{PKG_CONFIG_PATH} "${libdir}/pkgconfig")
  execute_process(COMMAND ${pkg_config} --cflags --libs csrm OUTPUT_VARIABLE flags
    RESULT_VARIABLE status OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "pkg-config does not find csrm")
  endif()
  separate_arguments(flags UNIX_COMMAND "${flags}")
  run("cc" cc -std=c99 -pedantic -Wall -Wextra -Werror ${SOURCE}/docs/examples/gateway_filter.c
    ${flags} "-Wl,-rpath,${libdir}" -o ${work}/plain_c)
  run("c++" c++ -std=c++17 -pedantic -Wall -Wextra -Werror -pthread
    ${SOURCE}/docs/examples/gateway_filter.cc ${flags} "-Wl,-rpath,${libdir}" -o ${work}/plain_cc)
  list(APPEND programs ${work}/plain_c ${work}/plain_cc)
else()
  message("pkg-config is missing: its part is left out")
endif()

if(NOT ARTIFACT OR NOT ENGINE)
  message("SKIPPED 1 TESTS: the filters are built, but not run without a model and an engine")
  return()
endif()

# Bodies that are scored, broken or not a conversation. Nothing but the prefix and the engine's
# library is there for the programs: no PATH, so no Python.
file(WRITE ${work}/policy.json
  "{\"rules\": [{\"name\": \"Refunds\", \"text\": \"Never promise a refund.\"}]}")
set(bodies)
foreach(i RANGE 1 20)
  string(APPEND bodies "{\"messages\": [{\"role\": \"user\", \"content\": \"Question ${i}?\"}, "
    "{\"role\": \"assistant\", \"content\": \"Answer ${i}: I promise you a refund.\"}]}\n")
endforeach()
string(APPEND bodies "{\"messages\": [\n" "\n" "{\"messages\": []}\n"
  "{\"messages\": [{\"role\": \"wizard\", \"content\": \"a\"}]}\n")
file(WRITE ${work}/bodies.jsonl "${bodies}")
file(GLOB_RECURSE manifests "${prefix}/manifest.json")
cmake_path(GET manifests PARENT_PATH model)
set(ENV{CSRM_ENGINE_LIBRARY} ${ENGINE})
set(ENV{PATH} "")
foreach(program ${programs})
  execute_process(COMMAND ${program} 600000 ${model} ${work}/policy.json ${work}/bodies.jsonl
    RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE errors)
  if(NOT status EQUAL 1)
    message(FATAL_ERROR "${program} ended with ${status}, not 1:\n${output}${errors}")
  endif()
  string(REGEX MATCHALL "[^\n]+" lines "${output}")
  list(SORT lines COMPARE NATURAL)
  list(LENGTH lines n_lines)
  list(SUBLIST lines 20 4 broken)
  if(NOT n_lines EQUAL 24 OR NOT "${broken}" STREQUAL
      "21 unknown nan nan BadConversation;22 unknown nan nan BadConversation;23 unknown nan nan EmptyConversation;24 unknown nan nan UnknownRole")
    message(FATAL_ERROR "${program} did not fail closed:\n${output}${errors}")
  endif()
  list(SUBLIST lines 0 20 scored)
  list(FILTER scored EXCLUDE REGEX "^[0-9]+ (allow|block) -?[0-9.e-]+ [0-9.e-]+ -$")
  if(scored)
    message(FATAL_ERROR "${program} did not score:\n${scored}")
  endif()
  if(DEFINED expected AND NOT lines STREQUAL expected)
    message(FATAL_ERROR "${program} scores differently than ${programs}")
  endif()
  set(expected "${lines}")
endforeach()
message("${programs} agree")
