#!/usr/bin/env python3
"""A mount that shows other owners than those in the volume, as containers use it, and who asks on any mount.

Where such mounts are possible the kernel says who asks only when something is made: for the rest it is looked up.
"""

import ctypes
import errno
import os
import signal
import stat
import unittest

import harness
from harness import TarnTest, errno_as_user

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000
CLONE_NEWUSER = 0x10000000
OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442
OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH, MOUNT_ATTR_IDMAP = 1, 4, 0x00100000
RENAME_WHITEOUT = 4
SHIFT = 100_000


class MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def call(number, *arguments):
    result = LIBC.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def user_namespace(first_shown, count=65536):
    """A descriptor of one in which 0 is `first_shown` outside."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(tell, b"made" if LIBC.unshare(CLONE_NEWUSER) == 0 else b"refused")
        signal.pause()
        os._exit(0)
    try:
        if os.read(ready, 7) != b"made":
            raise unittest.SkipTest("no user namespaces can be made here, as in a chroot")
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{child}/{name}", "w") as mapping:
                mapping.write(f"0 {first_shown} {count}")
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(tell)


def owner(path):
    found = os.lstat(path)
    return found.st_uid, found.st_gid


class Idmapped(TarnTest):
    def setUp(self):
        super().setUp()
        self.image = self.make_volume(size="64M")
        self.primary = self.mount(self.image, options="dev,suid,allow_other")
        self.root = self.primary.mountpoint
        os.chmod(self.directory, 0o755)

    def tearDown(self):
        if os.path.ismount(self.directory / "shifted"):
            harness.run("umount", "-i", self.directory / "shifted")
        if self.primary.process.poll() is None:
            self.primary.unmount()
        self.assert_clean(self.image)

    def show_shifted(self):
        """The volume at a second place, where its user 0 is user 100000."""
        place = self.directory / "shifted"
        place.mkdir()
        names = user_namespace(SHIFT)
        tree = call(OPEN_TREE, AT_FDCWD, os.fsencode(self.root), OPEN_TREE_CLONE | os.O_CLOEXEC)
        attributes = MountAttributes(attr_set=MOUNT_ATTR_IDMAP, userns_fd=names)
        try:
            call(MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, ctypes.byref(attributes), ctypes.sizeof(attributes))
            call(MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(place), MOVE_MOUNT_F_EMPTY_PATH)
        finally:
            os.close(tree)
            os.close(names)
        return place

    def test_owners_are_shifted_both_ways(self):
        os.chmod(self.root, 0o777)
        (self.root / "before").touch()
        os.chown(self.root / "before", 5, 6)
        try:
            place = self.show_shifted()
        except OSError as error:
            self.assertEqual(error.errno, errno.EINVAL)
            self.skipTest("this kernel has no idmapped mounts of FUSE file systems")
        self.assertEqual(owner(place / "before"), (SHIFT + 5, SHIFT + 6))

        def make_all():
            (place / "file").write_text("content")
            (place / "directory").mkdir()
            os.symlink("file", place / "symlink")
            os.mkfifo(place / "fifo")
            os.rename(place / "file", place / "moved")
            os.link(place / "moved", place / "linked")
            names = [os.fsencode(place / name) for name in ("moved", "again")]
            code = LIBC.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_WHITEOUT)
            if code != 0:
                raise OSError(ctypes.get_errno(), "renameat2")
            unnamed = os.open(place, os.O_TMPFILE | os.O_RDWR, 0o600)
            # Only with a directory's descriptor does Python follow the link.
            below = os.open(place, os.O_RDONLY)
            os.link(f"/proc/self/fd/{unnamed}", "unnamed", src_dir_fd=below, dst_dir_fd=below, follow_symlinks=True)

        self.assertEqual(errno_as_user(SHIFT + 7, make_all), 0)
        for name in ("directory", "symlink", "fifo", "moved", "linked", "again", "unnamed"):
            self.assertEqual(owner(place / name), (SHIFT + 7, SHIFT + 7), name)
            self.assertEqual(owner(self.root / name), (7, 7), name)
        self.assertTrue(stat.S_ISCHR(os.lstat(self.root / "moved").st_mode))
        os.chown(place / "again", SHIFT + 8, SHIFT + 9)
        self.assertEqual(owner(self.root / "again"), (8, 9))
        self.assert_errno(errno.EOVERFLOW, os.chown, place / "again", 8, 9)
        self.assertEqual(errno_as_user(SHIFT + 7, lambda: os.chmod(place / "again", 0o777)), errno.EPERM)
        self.assertEqual(errno_as_user(SHIFT + 8, lambda: os.chmod(place / "again", 0o777)), 0)
        # Who is not known there cannot make anything.
        self.assertEqual(errno_as_user(7, lambda: (place / "new").touch()), errno.EOVERFLOW)

    def test_who_asks_is_known_without_a_word_of_the_kernel(self):
        path = self.root / "program"
        path.write_bytes(bytes(8192))
        (self.root / "source").write_bytes(bytes(8192))
        with open(path, "rb+") as program, open(self.root / "source", "rb") as source:
            for user, left in ((1234, 0o0666), (0, 0o6666)):
                for act in (
                    lambda: os.posix_fallocate(program.fileno(), 0, 4096),
                    lambda: os.copy_file_range(source.fileno(), program.fileno(), 100, 0, 0),
                ):
                    os.chmod(path, 0o6666)
                    self.assertEqual(errno_as_user(user, act), 0)
                    self.assertEqual(stat.S_IMODE(path.stat().st_mode), left, f"of user {user}")


if __name__ == "__main__":
    harness.main()
