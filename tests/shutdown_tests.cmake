tarnfs_unit_test(engine_shutdown_test LINKS common fs/storage fs/engine fs/check)
tarnfs_end_to_end_test(shutdown_test)
tarnfs_unit_test(access_time_test LINKS common fs/storage fs/engine fs/check)
