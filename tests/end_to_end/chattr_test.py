#!/usr/bin/env python3
"""chattr +i and +a on a real mount: what is immutable or append-only stays as it is, whoever asks.

Names and attributes are protected at once. Opens are from the next mount on, because the kernel was told that it need
not ask; with chattr=strict at once.
"""

import errno
import fcntl
import os
import struct

import harness
from harness import TarnTest

FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
IMMUTABLE, APPEND = 0x10, 0x20


def flags_of(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return struct.unpack("i", fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, bytes(4)))[0]
    finally:
        os.close(descriptor)


def set_flags(path, flags):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("i", flags))
    finally:
        os.close(descriptor)


class Protection(TarnTest):
    def setUp(self):
        super().setUp()
        self.image = self.make_volume(size="64M")

    def mount_it(self, options=""):
        self.primary = self.mount(self.image, options=options)
        self.root = self.primary.mountpoint
        self.fixed, self.log, self.directory_in_it = (self.root / name for name in ("fixed", "log", "directory"))

    def remount(self, options=""):
        self.primary.unmount()
        self.assert_clean(self.image)
        self.mount_it(options)

    def make(self):
        self.fixed.write_text("content")
        os.setxattr(self.fixed, "user.old", b"value")
        self.log.write_text("line 1\n")
        self.directory_in_it.mkdir()
        (self.directory_in_it / "file").write_text("content")
        set_flags(self.fixed, IMMUTABLE)
        set_flags(self.log, APPEND)
        set_flags(self.directory_in_it, IMMUTABLE)

    def clear(self):
        for path in (self.fixed, self.log, self.directory_in_it):
            set_flags(path, 0)

    def assert_names_and_attributes_are_protected(self):
        other = self.root / "other"
        for path in (self.fixed, self.log):
            self.assert_errno(errno.EPERM, os.unlink, path)
            self.assert_errno(errno.EPERM, os.rename, path, other)
            self.assert_errno(errno.EPERM, os.link, path, other)
            self.assert_errno(errno.EPERM, os.chmod, path, 0o777)
            self.assert_errno(errno.EPERM, os.chown, path, 1, 1)
            self.assert_errno(errno.EPERM, os.truncate, path, 0)
            self.assert_errno(errno.EPERM, os.utime, path, (0, 0))
            self.assert_errno(errno.EPERM, os.setxattr, path, "user.new", b"value")
            self.assert_errno(errno.EPERM, os.open, path, os.O_WRONLY | os.O_TRUNC)
        self.assert_errno(errno.EPERM, os.removexattr, self.fixed, "user.old")
        self.assert_errno(errno.EPERM, os.utime, self.fixed)
        os.utime(self.log)
        inside = self.directory_in_it / "file"
        self.assert_errno(errno.EPERM, os.unlink, inside)
        self.assert_errno(errno.EPERM, os.rename, inside, other)
        self.assert_errno(errno.EPERM, os.mkdir, self.directory_in_it / "new")
        self.assert_errno(errno.EPERM, os.symlink, "target", self.directory_in_it / "new")
        self.assert_errno(errno.EPERM, os.open, self.directory_in_it / "new", os.O_CREAT | os.O_WRONLY)
        inside.write_text("the file itself is not protected")

    def assert_opens_are_protected(self):
        appending, truncating = os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_TRUNC
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT, appending, truncating):
            self.assert_errno(errno.EPERM, os.open, self.fixed, flags)
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT, appending | os.O_TRUNC):
            self.assert_errno(errno.EPERM, os.open, self.log, flags)
        before = self.log.read_text()
        with open(self.log, "a+") as log:
            log.write("another line\n")
            log.seek(0)
            self.assertEqual(log.read(), before + "another line\n")
            self.assert_errno(errno.EPERM, os.ftruncate, log.fileno(), 0)
        self.assertEqual(self.fixed.read_text(), "content")

    def test_opens_are_refused_from_the_next_mount_on(self):
        self.mount_it()
        self.make()
        self.assert_names_and_attributes_are_protected()
        self.remount()
        self.assertEqual(flags_of(self.fixed), IMMUTABLE)
        self.assertEqual(flags_of(self.log), APPEND)
        self.assert_names_and_attributes_are_protected()
        self.assert_opens_are_protected()
        # What is new in such a mount is protected at once, and free at once when its flags go.
        new = self.root / "new"
        new.write_text("new")
        set_flags(new, IMMUTABLE)
        self.assert_errno(errno.EPERM, os.open, new, os.O_WRONLY)
        self.clear()
        set_flags(new, 0)
        for path in (new, self.fixed, self.log, self.directory_in_it / "file"):
            path.write_text("other content")
        self.remount()
        self.assertEqual(self.fixed.read_text(), "other content")

    def test_opens_are_refused_at_once_where_it_is_asked_for(self):
        self.mount_it("chattr=strict")
        self.make()
        self.assert_names_and_attributes_are_protected()
        self.assert_opens_are_protected()
        self.primary.unmount()
        self.assert_clean(self.image)

    def test_a_crash_leaves_it_protected(self):
        self.mount_it()
        self.fixed.write_text("content")
        set_flags(self.fixed, IMMUTABLE)
        descriptor = os.open(self.fixed, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        self.primary.kill()
        self.mount_it()
        self.assert_errno(errno.EPERM, os.open, self.fixed, os.O_WRONLY)
        self.assertEqual(self.fixed.read_text(), "content")
        self.primary.unmount()
        self.assert_clean(self.image)

    def test_what_was_written_before_is_not_lost(self):
        """The kernel writes its pages back after chattr(1), and for who had the file open already."""
        self.mount_it("chattr=strict")
        data = os.urandom(3 << 20)
        with open(self.fixed, "wb") as file:
            file.write(data)
            file.flush()
            set_flags(self.fixed, IMMUTABLE)
            os.fsync(file.fileno())
        changed_at = self.fixed.stat().st_mtime_ns
        self.remount()
        self.assertEqual(self.fixed.read_bytes(), data)
        self.assertEqual(self.fixed.stat().st_mtime_ns, changed_at)
        self.primary.unmount()

    def test_others_are_refused_too(self):
        self.mount_it("chattr=strict")
        self.fixed.write_text("content")
        os.chmod(self.fixed, 0o666)
        os.chmod(self.root, 0o777)
        os.chmod(self.directory, 0o755)
        set_flags(self.fixed, IMMUTABLE)
        child = os.fork()
        if child == 0:
            os.setuid(1234)
            try:
                os.open(self.fixed, os.O_WRONLY)
            except PermissionError as error:
                os._exit(error.errno)
            os._exit(0)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), errno.EPERM)
        self.primary.unmount()


if __name__ == "__main__":
    harness.main()
