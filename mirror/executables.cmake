add_executable(tarn-mirrord mirror/daemon/tarn_mirrord_main.cpp)
target_link_libraries(tarn-mirrord PRIVATE tarnfs_mirror_daemon)
