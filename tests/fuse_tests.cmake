tarnfs_unit_test(fuse_errno_test LINKS fs/fuse)
tarnfs_unit_test(fuse_mount_test LINKS fs/fuse)
tarnfs_unit_test(control_text_test LINKS fs/control)
tarnfs_unit_test(control_server_test LINKS fs/control)
