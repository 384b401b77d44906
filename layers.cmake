# The layers, lowest first. A folder may include itself and the folders it depends on, directly or through others.
tarnfs_folder(common LIBRARIES fmt::fmt spdlog::spdlog PkgConfig::XXHASH Threads::Threads)
tarnfs_folder(fs/storage DEPENDS common LIBRARIES fmt::fmt)
tarnfs_folder(fs/tree DEPENDS common fs/storage LIBRARIES fmt::fmt)
tarnfs_folder(fs/journal DEPENDS common LIBRARIES fmt::fmt)
tarnfs_folder(fs/engine DEPENDS common fs/storage fs/tree fs/journal LIBRARIES fmt::fmt Threads::Threads)
tarnfs_folder(fs/check DEPENDS common fs/storage fs/tree fs/journal LIBRARIES fmt::fmt)
tarnfs_folder(fs/control DEPENDS common LIBRARIES fmt::fmt nlohmann_json::nlohmann_json CLI11::CLI11 Threads::Threads)
tarnfs_folder(fs/fuse DEPENDS common fs/engine LIBRARIES fmt::fmt PkgConfig::FUSE3 Threads::Threads)
tarnfs_folder(mirror/wire DEPENDS common LIBRARIES fmt::fmt PkgConfig::LZ4)
tarnfs_folder(mirror/channel DEPENDS common mirror/wire LIBRARIES fmt::fmt PkgConfig::ZMQ Threads::Threads)
tarnfs_folder(mirror/sender DEPENDS common mirror/wire LIBRARIES fmt::fmt Threads::Threads)
tarnfs_folder(mirror/receiver DEPENDS common mirror/wire LIBRARIES fmt::fmt Threads::Threads)
tarnfs_folder(mirror/fed DEPENDS common fs/control mirror/sender mirror/channel LIBRARIES fmt::fmt)
tarnfs_folder(fs/tools DEPENDS common fs/storage fs/tree fs/engine fs/check fs/control mirror/channel
              LIBRARIES fmt::fmt PkgConfig::BLKID)
tarnfs_folder(fs/daemon DEPENDS common fs/engine fs/fuse fs/control mirror/sender mirror/channel
              mirror/fed LIBRARIES fmt::fmt)
tarnfs_folder(mirror/daemon DEPENDS common fs/engine fs/fuse fs/control mirror/receiver mirror/sender mirror/channel
              mirror/fed LIBRARIES fmt::fmt CLI11::CLI11 nlohmann_json::nlohmann_json)
include(fs/check_executable.cmake OPTIONAL)
include(fs/executables.cmake OPTIONAL)
include(mirror/executables.cmake OPTIONAL)
