# The programs of the primary's side. packaging/install.cmake installs them; the names that mount(8) and umount(8) look
# for are links.
function(tarnfs_program name main)
  cmake_parse_arguments(ARG "" "" "LINKS" ${ARGN})
  add_executable(${name} ${main})
  foreach(folder ${ARG_LINKS})
    string(REPLACE "/" "_" folder_name "${folder}")
    target_link_libraries(${name} PRIVATE tarnfs_${folder_name})
  endforeach()
endfunction()

tarnfs_program(tarnfs fs/daemon/tarnfs_main.cpp LINKS fs/daemon)
tarnfs_program(tarn fs/tools/tarn_main.cpp LINKS fs/control fs/tools mirror/channel)
tarnfs_program(mkfs.tarnfs fs/tools/mkfs_tarnfs_main.cpp LINKS fs/tools)
tarnfs_program(mount.tarnfs fs/tools/mount_tarnfs_main.cpp LINKS fs/tools)
tarnfs_program(umount.tarnfs fs/tools/umount_tarnfs_main.cpp LINKS fs/tools)

# In the build directory too, so that what was built can be tried without installing it.
include(GNUInstallDirs)
foreach(kind fuse fuseblk)
  foreach(helper mount umount mkfs fsck)
    add_custom_command(TARGET ${helper}.tarnfs POST_BUILD
                       COMMAND ${CMAKE_COMMAND} -E create_symlink ${helper}.tarnfs ${helper}.${kind}.tarnfs
                       WORKING_DIRECTORY $<TARGET_FILE_DIR:${helper}.tarnfs> VERBATIM)
    install(CODE "file(CREATE_LINK ${helper}.tarnfs \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_SBINDIR}/${helper}.${kind}.tarnfs\" SYMBOLIC)")
  endforeach()
endforeach()
