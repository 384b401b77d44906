tarnfs_unit_test(format_test LINKS common)
tarnfs_unit_test(histogram_test LINKS common)
tarnfs_unit_test(flat_map_test LINKS common)
tarnfs_unit_test(buffer_pool_test LINKS common)
