# The benchmark: what it is built from, and tests that it works. Nothing here is timed.
add_subdirectory(bench)

find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME bench_figures_test COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/bench/figures_test.py)
set_tests_properties(bench_figures_test PROPERTIES
  LABELS quick TIMEOUT 60 ENVIRONMENT PYTHONDONTWRITEBYTECODE=1)

add_test(NAME bench_smoke_test COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/bench/smoke_test.py)
set_tests_properties(bench_smoke_test PROPERTIES
  LABELS end_to_end TIMEOUT 600 SKIP_RETURN_CODE 77
  ENVIRONMENT "PYTHONDONTWRITEBYTECODE=1;TARNFS_BIN=${CMAKE_BINARY_DIR}")
