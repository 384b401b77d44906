tarnfs_unit_test(engine_test LINKS common fs/storage fs/engine fs/check)
tarnfs_unit_test(engine_model_test LINKS common fs/storage fs/engine fs/check)
tarnfs_unit_test(engine_review_test LINKS common fs/storage fs/engine fs/check)
