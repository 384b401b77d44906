tarnfs_unit_test(system_test LINKS common fs/storage fs/engine fs/check mirror/sender mirror/receiver mirror/wire)
