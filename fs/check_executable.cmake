add_executable(fsck.tarnfs fs/tools/fsck_tarnfs_main.cpp)
target_link_libraries(fsck.tarnfs PRIVATE tarnfs_fs_check fmt::fmt CLI11::CLI11 nlohmann_json::nlohmann_json)
