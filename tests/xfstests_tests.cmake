# xfstests itself is not part of the project: only what reads its results is tested here.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME xfstests_table_test COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/xfstests/table_test.py)
set_tests_properties(xfstests_table_test PROPERTIES
  LABELS quick TIMEOUT 60 ENVIRONMENT PYTHONDONTWRITEBYTECODE=1)
