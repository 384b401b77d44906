# Tests that mount for real. Each file is one test; tests/end_to_end/harness.py says what they share.
# TARNFS_TEST_FULL=1 in the environment gives full sizes.
function(tarnfs_end_to_end_test name)
  cmake_parse_arguments(ARG "SERIAL;SMOKE" "" "" ${ARGN})
  add_test(NAME ${name} COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/end_to_end/${name}.py)
  set(labels end_to_end)
  if(ARG_SMOKE)
    list(APPEND labels smoke)
  endif()
  set(timeout 600)
  if(DEFINED ENV{TARNFS_TEST_FULL})
    set(timeout 7200)
  endif()
  set_tests_properties(${name} PROPERTIES
    LABELS "${labels}" TIMEOUT ${timeout} SKIP_RETURN_CODE 77
    ENVIRONMENT "PYTHONDONTWRITEBYTECODE=1;TARNFS_BIN=${CMAKE_BINARY_DIR}")
  if(ARG_SERIAL)
    set_tests_properties(${name} PROPERTIES RUN_SERIAL ON)
  endif()
endfunction()

find_package(Python3 REQUIRED COMPONENTS Interpreter)
tarnfs_end_to_end_test(posix_test SMOKE)
tarnfs_end_to_end_test(bad_input_test)
tarnfs_end_to_end_test(mirror_test SMOKE)
tarnfs_end_to_end_test(consistency_test)
tarnfs_end_to_end_test(crash_test)
tarnfs_end_to_end_test(programs_test)
tarnfs_end_to_end_test(mount_test SERIAL)
