# Both daemons once more, with the failpoints of common/failpoint.h. The files that have some are compiled anew, and
# their objects come before the libraries that hold the ones without.
function(tarnfs_program_with_failpoints name)
  cmake_parse_arguments(ARG "" "FOLDER" "SOURCES" ${ARGN})
  list(TRANSFORM ARG_SOURCES PREPEND ${PROJECT_SOURCE_DIR}/)
  add_executable(${name} ${ARG_SOURCES} support/failpoint.cpp)
  target_compile_definitions(${name} PRIVATE TARNFS_FAILPOINTS)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_FOLDER} fmt::fmt Threads::Threads)
endfunction()

tarnfs_program_with_failpoints(tarnfs-failpoints FOLDER tarnfs_fs_daemon
  SOURCES fs/daemon/tarnfs_main.cpp fs/engine/consistency_point.cpp mirror/sender/session.cpp)
tarnfs_program_with_failpoints(tarn-mirrord-failpoints FOLDER tarnfs_mirror_daemon
  SOURCES mirror/daemon/tarn_mirrord_main.cpp mirror/receiver/mirror_image.cpp mirror/receiver/staging_file.cpp
          mirror/receiver/network_loop.cpp)

tarnfs_end_to_end_test(mirror_failures_test)
