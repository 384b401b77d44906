# Headers of the standard library, parsed once for all sources of a sanitizer's build, which takes a third of its time
# away. Not in other builds: there each source has to include what it uses.
set(tarnfs_prelude_headers
  <algorithm> <array> <atomic> <chrono> <condition_variable> <deque> <filesystem> <fstream> <functional> <map> <memory>
  <mutex> <optional> <random> <set> <span> <string> <thread> <unordered_map> <vector> <fmt/format.h>)

# A prelude for targets that are compiled with `options` besides those of all. HEADERS are parsed with it.
function(tarnfs_prelude name)
  cmake_parse_arguments(ARG "" "" "OPTIONS;HEADERS" ${ARGN})
  if(NOT TARNFS_SANITIZER)
    return()
  endif()
  set(source ${CMAKE_CURRENT_BINARY_DIR}/${name}.cpp)
  file(CONFIGURE OUTPUT ${source} CONTENT "// Its precompiled headers are what counts.\n")
  add_library(${name} OBJECT ${source})
  target_compile_options(${name} PRIVATE ${ARG_OPTIONS})
  target_link_libraries(${name} PRIVATE fmt::fmt)
  target_precompile_headers(${name} PRIVATE ${tarnfs_prelude_headers} ${ARG_HEADERS})
endfunction()

function(tarnfs_parse_headers_once target prelude)
  if(TARNFS_SANITIZER)
    target_precompile_headers(${target} REUSE_FROM ${prelude})
  endif()
endfunction()

if(TARNFS_SANITIZER)
  # Some libraries ask for it, and what uses a prelude has to agree with it.
  add_compile_options(-pthread)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    # ccache can know the same headers again.
    add_compile_options("SHELL:-Xclang -fno-pch-timestamp")
  endif()
endif()
tarnfs_prelude(tarnfs_prelude)
