# PkgConfig::FUSE3: what packaging/libfuse/build built, which has io_uring, or else the system's libfuse.
set(TARNFS_FUSE_PREFIX "" CACHE STRING
    "Where packaging/libfuse/build put its libfuse; empty: build/libfuse if it is there; system: take the system's")

set(fuse_prefix "${TARNFS_FUSE_PREFIX}")
if(fuse_prefix STREQUAL "" AND EXISTS ${PROJECT_SOURCE_DIR}/build/libfuse/lib/pkgconfig/fuse3.pc)
  set(fuse_prefix ${PROJECT_SOURCE_DIR}/build/libfuse)
elseif(fuse_prefix STREQUAL "system")
  set(fuse_prefix "")
endif()

if(fuse_prefix)
  set(package_path "$ENV{PKG_CONFIG_PATH}")
  set(ENV{PKG_CONFIG_PATH} "${fuse_prefix}/lib/pkgconfig:${package_path}")
  # Names of their own: what was found of the other libfuse stays in CMake's cache.
  pkg_check_modules(TARNFS_FUSE3 REQUIRED IMPORTED_TARGET fuse3>=3.18)
  set(ENV{PKG_CONFIG_PATH} "${package_path}")
  add_library(PkgConfig::FUSE3 ALIAS PkgConfig::TARNFS_FUSE3)
  message(STATUS "libfuse ${TARNFS_FUSE3_VERSION} of ${fuse_prefix}, with io_uring")
else()
  pkg_check_modules(FUSE3 REQUIRED IMPORTED_TARGET fuse3>=3.14)
  message(STATUS "libfuse ${FUSE3_VERSION} of the system, without io_uring")
endif()
