tarnfs_unit_test(format_test LINKS common)
