tarnfs_unit_test(fuse_errno_test LINKS fs/fuse)
tarnfs_unit_test(ring_thread_test LINKS fs/fuse)
tarnfs_unit_test(kernel_cache_test LINKS fs/fuse)
tarnfs_unit_test(one_view_test LINKS fs/fuse)
tarnfs_unit_test(mirror_mount_test LINKS common fs/storage fs/engine fs/check fs/fuse)
tarnfs_unit_test(fuse_mount_test LINKS fs/fuse)
# The same over io_uring, where the library and the kernel have it; else it says why and skips.
add_test(NAME fuse_mount_io_uring_test COMMAND fuse_mount_test)
add_test(NAME mirror_mount_io_uring_test COMMAND mirror_mount_test)
set_tests_properties(fuse_mount_io_uring_test mirror_mount_io_uring_test PROPERTIES
  LABELS quick TIMEOUT ${unit_test_seconds_max} ENVIRONMENT TARNFS_TEST_IO_URING=1)
tarnfs_unit_test(control_text_test LINKS fs/control)
tarnfs_unit_test(control_server_test LINKS fs/control)
tarnfs_unit_test(fuse_mount_options_test LINKS fs/daemon fs/tools)
