tarnfs_unit_test(fuse_errno_test LINKS fs/fuse)
tarnfs_unit_test(fuse_mount_test LINKS fs/fuse)
