# Tests of the source tree itself: layers, headers, formatting, neatness, clang-tidy, scripts and man pages.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
set(ground ${CMAKE_CURRENT_SOURCE_DIR}/ground)

get_property(tarnfs_layers GLOBAL PROPERTY TARNFS_LAYERS)
file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/layers.txt CONTENT "${tarnfs_layers}" @ONLY)

# tarnfs_ground_test(NAME LABEL COMMAND...)
function(tarnfs_ground_test name label)
  add_test(NAME ${name} COMMAND ${ARGN})
  set_tests_properties(${name} PROPERTIES LABELS ${label} TIMEOUT 900 ENVIRONMENT PYTHONDONTWRITEBYTECODE=1)
endfunction()

set(python ${Python3_EXECUTABLE})
tarnfs_ground_test(ground_checks_test ground ${python} ${ground}/checks_test.py)
tarnfs_ground_test(layers_test ground ${python} ${ground}/layers.py ${PROJECT_SOURCE_DIR}
                   ${CMAKE_CURRENT_BINARY_DIR}/layers.txt)
tarnfs_ground_test(headers_test ground ${python} ${ground}/headers.py ${PROJECT_SOURCE_DIR} ${CMAKE_CXX_COMPILER})
tarnfs_ground_test(neatness_test ground ${python} ${ground}/neatness.py ${PROJECT_SOURCE_DIR})
tarnfs_ground_test(formatting_test ground ${python} ${ground}/formatting.py ${PROJECT_SOURCE_DIR})
tarnfs_ground_test(man_pages_test ground ${python} ${ground}/man_pages.py ${PROJECT_SOURCE_DIR})
tarnfs_ground_test(tidy_test tidy ${python} ${ground}/tidy.py ${PROJECT_SOURCE_DIR} ${CMAKE_BINARY_DIR})
set_tests_properties(headers_test tidy_test PROPERTIES RUN_SERIAL ON)
