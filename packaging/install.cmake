# What `cmake --install` puts where. mount(8) and umount(8) look for their helpers in /sbin only: packaging/quickstart
# links them there.
include(GNUInstallDirs)

foreach(program tarn tarnfs tarn-mirrord mkfs.tarnfs fsck.tarnfs mount.tarnfs umount.tarnfs)
  if(TARGET ${program})
    if(program STREQUAL "tarn")
      install(TARGETS ${program} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
    else()
      install(TARGETS ${program} RUNTIME DESTINATION ${CMAKE_INSTALL_SBINDIR})
    endif()
  endif()
endforeach()

install(FILES man/tarn.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES man/tarnfs.8 man/mkfs.tarnfs.8 man/fsck.tarnfs.8 man/tarn-mirrord.8 man/mount.tarnfs.8
        DESTINATION ${CMAKE_INSTALL_MANDIR}/man8)

# modprobe(8) looks there too when the prefix is /usr/local. Without io_uring it would be of no use.
if(TARNFS_FUSE3_FOUND)
  install(FILES packaging/modprobe.d/tarnfs.conf DESTINATION lib/modprobe.d)
endif()

set(completions ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES packaging/completion/tarn DESTINATION ${completions})
foreach(program tarnfs tarn-mirrord mkfs.tarnfs fsck.tarnfs)
  install(CODE "file(CREATE_LINK tarn \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${completions}/${program}\" SYMBOLIC)")
endforeach()
install(FILES LICENSE README.md CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
