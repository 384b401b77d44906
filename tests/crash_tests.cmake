# The crash simulator: heavy to compile, so once for all that use it.
add_library(tarnfs_test_crash STATIC
  support/crash_simulation.cpp support/crash_states.cpp support/crash_workload.cpp support/model_file_system.cpp
  support/observation.cpp support/volume_life.cpp support/workload_runner.cpp)
target_include_directories(tarnfs_test_crash PUBLIC ${PROJECT_SOURCE_DIR})
target_link_libraries(tarnfs_test_crash PUBLIC tarnfs_fs_engine tarnfs_fs_check fmt::fmt Threads::Threads)

tarnfs_unit_test(crash_simulation_test LINKS test/crash)

# The same program with many more states; how many says the program when TARNFS_TEST_FULL is set.
add_test(NAME crash_simulation_ci_test COMMAND crash_simulation_test)
set(crash_timeout 900)
if(DEFINED ENV{TARNFS_TEST_FULL})
  set(crash_timeout 7200)
endif()
set_tests_properties(crash_simulation_ci_test PROPERTIES
  LABELS crash TIMEOUT ${crash_timeout} ENVIRONMENT "TARNFS_CRASH_STATES=20000")

# The simulator must find a bug that is planted in one product source: NAME is compiled with DEFINITION, and its object
# comes before the library that holds the sound one.
function(tarnfs_planted_crash_test name definition source)
  add_executable(${name} unit/crash_simulation_test.cpp ${PROJECT_SOURCE_DIR}/${source})
  target_compile_definitions(${name} PRIVATE ${definition})
  target_link_libraries(${name} PRIVATE tarnfs_test_crash tarnfs_doctest_main doctest::doctest fmt::fmt Threads::Threads)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES
    LABELS crash TIMEOUT 120 ENVIRONMENT "TARNFS_CRASH_EXPECT_VIOLATION=1")
endfunction()

tarnfs_planted_crash_test(crash_planted_early_root_test TARNFS_PLANT_EARLY_ROOT common/format.cpp)
tarnfs_planted_crash_test(crash_planted_missing_flush_test TARNFS_PLANT_MISSING_FLUSH fs/journal/journal_writer.cpp)
tarnfs_planted_crash_test(crash_planted_journal_order_test TARNFS_PLANT_JOURNAL_ORDER fs/journal/name_log.cpp)
tarnfs_planted_crash_test(crash_planted_unlogged_shares_test TARNFS_PLANT_UNLOGGED_SHARES fs/engine/engine_journal.cpp)

tarnfs_unit_test(fault_test LINKS test/crash)
# Sanitizers make them ten times slower.
set_tests_properties(crash_simulation_test fault_test PROPERTIES TIMEOUT 600)
