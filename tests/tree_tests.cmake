tarnfs_unit_test(directory_test LINKS fs/tree)
tarnfs_unit_test(page_map_test LINKS common fs/tree)
tarnfs_unit_test(posix_acl_test LINKS fs/engine)
tarnfs_unit_test(xattr_set_test LINKS fs/engine)
