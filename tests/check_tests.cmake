tarnfs_unit_test(check_volume_test LINKS fs/check)
tarnfs_unit_test(check_names_test LINKS fs/check)
tarnfs_unit_test(check_damage_test LINKS fs/check)
tarnfs_unit_test(check_engine_test LINKS fs/check fs/engine)
