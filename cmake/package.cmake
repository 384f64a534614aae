# What gets installed, and where: library, headers, model, csrmConfig.cmake and csrm.pc. A prefix
# (cmake --install) has the usual folders; a wheel has everything under csrm/, which may lie
# anywhere: no file holds an absolute path. Not: how the library is built (CMakeLists.txt).

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# One version in three places, and the interface's own, which names the library.
file(STRINGS runtime/include/csrm/csrm.h version_lines
  REGEX "^#define CSRM_(VERSION|ABI_VERSION|VERSION_MAJOR|VERSION_MINOR|VERSION_PATCH) ")
if(NOT version_lines MATCHES
    "MAJOR ${PROJECT_VERSION_MAJOR};.*MINOR ${PROJECT_VERSION_MINOR};.*PATCH ${PROJECT_VERSION_PATCH};.*VERSION \"${PROJECT_VERSION}\";")
  message(FATAL_ERROR "CSRM_VERSION* of csrm.h are not ${PROJECT_VERSION}, the version of the project")
endif()
if(SKBUILD AND NOT SKBUILD_PROJECT_VERSION VERSION_EQUAL PROJECT_VERSION)
  message(FATAL_ERROR "The version of pyproject.toml, ${SKBUILD_PROJECT_VERSION}, is not that of "
    "CMakeLists.txt, ${PROJECT_VERSION}")
endif()
string(REGEX REPLACE ".*CSRM_ABI_VERSION ([0-9]+).*" "\\1" CSRM_ABI_VERSION "${version_lines}")

# Exports what csrm.h and the C++ headers declare, and nothing of the standard library. The C API
# keeps its node for as long as its version; a C++ program needs the release it was built with.
if(CMAKE_SYSTEM_NAME STREQUAL "Linux" AND NOT CSRM_SANITIZE)
  set(exports ${CMAKE_CURRENT_BINARY_DIR}/generated/exports.map)
  configure_file(cmake/exports.map.in ${exports} @ONLY)
  target_link_options(csrm PRIVATE "-Wl,--version-script=${exports}")
  set_property(TARGET csrm APPEND PROPERTY LINK_DEPENDS ${exports})
endif()

if(SKBUILD)
  set(csrm_libdir csrm/lib)
  set(csrm_includedir csrm/include)
  set(csrm_artifacts csrm/artifacts)
  # A wheel cannot hold symbolic links, so the library has its plain name only, and it is in no
  # folder that the loader searches: programs keep its place.
  set(csrm_rpath " -Wl,-rpath,\${libdir}")
  install(TARGETS _core LIBRARY DESTINATION csrm)
else()
  set(csrm_libdir ${CMAKE_INSTALL_LIBDIR})
  set(csrm_includedir ${CMAKE_INSTALL_INCLUDEDIR})
  set(csrm_artifacts ${CMAKE_INSTALL_DATADIR}/csrm/artifacts)
  set_target_properties(csrm PROPERTIES VERSION ${CSRM_ABI_VERSION}.${PROJECT_VERSION}
    SOVERSION ${CSRM_ABI_VERSION})
  install(DIRECTORY runtime/csrm/artifacts/ DESTINATION ${csrm_artifacts})
  install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
endif()
set(csrm_cmakedir ${csrm_libdir}/cmake/csrm)
set(csrm_pkgconfigdir ${csrm_libdir}/pkgconfig)

target_include_directories(csrm INTERFACE $<INSTALL_INTERFACE:${csrm_includedir}>)
target_compile_features(csrm INTERFACE cxx_std_17)
install(TARGETS csrm EXPORT csrmTargets LIBRARY DESTINATION ${csrm_libdir})
install(DIRECTORY runtime/include/csrm DESTINATION ${csrm_includedir}
  FILES_MATCHING PATTERN "*.h")
install(EXPORT csrmTargets NAMESPACE csrm:: DESTINATION ${csrm_cmakedir})
configure_package_config_file(cmake/csrmConfig.cmake.in
  ${CMAKE_CURRENT_BINARY_DIR}/generated/csrmConfig.cmake
  INSTALL_DESTINATION ${csrm_cmakedir} PATH_VARS csrm_artifacts
  NO_CHECK_REQUIRED_COMPONENTS_MACRO)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/generated/csrmConfigVersion.cmake
  COMPATIBILITY SameMajorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/generated/csrmConfig.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/generated/csrmConfigVersion.cmake DESTINATION ${csrm_cmakedir})

# The paths of csrm.pc start at its own folder.
foreach(name libdir includedir artifacts)
  file(RELATIVE_PATH csrm_pc_${name} /${csrm_pkgconfigdir} /${csrm_${name}})
endforeach()
configure_file(cmake/csrm.pc.in ${CMAKE_CURRENT_BINARY_DIR}/generated/csrm.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/generated/csrm.pc DESTINATION ${csrm_pkgconfigdir})
