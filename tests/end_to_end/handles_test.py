#!/usr/bin/env python3
"""File handles as an NFS server keeps them: they name the same inode over unmounts, crashes and renames, at the mirror
too, and never another one."""

import ctypes
import errno
import os
import struct

import harness
from harness import TarnTest

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
HANDLE_BYTES_MAX = 128


def handle_of(path):
    """What name_to_handle_at(2) says: the struct file_handle, as bytes."""
    handle = ctypes.create_string_buffer(struct.pack("Ii", HANDLE_BYTES_MAX, 0), 8 + HANDLE_BYTES_MAX)
    mount = ctypes.c_int()
    if LIBC.name_to_handle_at(AT_FDCWD, os.fsencode(path), handle, ctypes.byref(mount), 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return handle.raw


def open_handle(mountpoint, handle, flags=os.O_RDONLY):
    """A descriptor from open_by_handle_at(2)."""
    mount = os.open(mountpoint, os.O_RDONLY)
    try:
        number = LIBC.open_by_handle_at(mount, ctypes.create_string_buffer(handle, len(handle)), flags)
        if number < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return number
    finally:
        os.close(mount)


def content_of(mountpoint, handle):
    with open(open_handle(mountpoint, handle), "rb") as file:
        return file.read()


class Handles(TarnTest):
    def setUp(self):
        super().setUp()
        self.image = self.make_volume(size="64M")
        self.mount_it()

    def mount_it(self, options=""):
        self.primary = self.mount(self.image, options=options)
        self.root = self.primary.mountpoint

    def remount(self, options=""):
        self.primary.unmount()
        self.assert_clean(self.image)
        self.mount_it(options)

    def make_tree(self):
        (self.root / "a" / "b" / "c").mkdir(parents=True)
        (self.root / "a" / "b" / "file").write_bytes(b"content")
        os.symlink("target", self.root / "a" / "link")
        os.mkfifo(self.root / "a" / "fifo")

    def test_a_handle_outlives_the_mount_and_the_name(self):
        self.make_tree()
        file, directory = self.root / "a" / "b" / "file", self.root / "a" / "b"
        handles = {path: handle_of(path) for path in (self.root, directory, file)}
        numbers = {path: path.stat().st_ino for path in handles}
        os.rename(file, self.root / "moved")
        for options in ("", "ro", ""):
            self.remount(options)
            for path, handle in handles.items():
                descriptor = open_handle(self.root, handle)
                self.assertEqual(os.fstat(descriptor).st_ino, numbers[path])
                os.close(descriptor)
            self.assertEqual(content_of(self.root, handles[file]), b"content")
            self.assertEqual(handle_of(self.root / "moved"), handles[file])
        with open(open_handle(self.root, handles[file], os.O_WRONLY | os.O_APPEND), "ab") as moved:
            moved.write(b" and more")
        self.assertEqual((self.root / "moved").read_bytes(), b"content and more")
        self.primary.unmount()

    def test_other_kinds_have_handles_too(self):
        self.make_tree()
        handles = {name: handle_of(self.root / "a" / name) for name in ("link", "fifo")}
        self.remount()
        for name, handle in handles.items():
            descriptor = open_handle(self.root, handle, os.O_PATH)
            self.assertEqual(os.fstat(descriptor).st_ino, (self.root / "a" / name).lstat().st_ino)
            os.close(descriptor)
        self.primary.unmount()

    def test_a_handle_of_a_directory_finds_its_way_up(self):
        self.make_tree()
        deepest = self.root / "a" / "b" / "c"
        handle = handle_of(deepest)
        numbers = [path.stat().st_ino for path in (deepest, deepest.parent, deepest.parent.parent, self.root)]
        os.rename(self.root / "a", self.root / "renamed")
        self.remount()
        descriptor = open_handle(self.root, handle)
        for name, number in zip((".", "..", "../..", "../../.."), numbers):
            self.assertEqual(os.stat(name, dir_fd=descriptor).st_ino, number)
        self.assertEqual(os.readlink(f"/proc/self/fd/{descriptor}"), str(self.root / "renamed" / "b" / "c"))
        os.close(os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
        self.assertEqual(os.listdir(self.root / "renamed" / "b" / "c"), ["new"])
        os.close(descriptor)
        self.primary.unmount()

    def test_a_handle_of_what_is_gone_is_stale_for_ever(self):
        self.make_tree()
        file, directory = self.root / "a" / "b" / "file", self.root / "a" / "b" / "c"
        handles = [handle_of(file), handle_of(directory)]
        old = {file.stat().st_ino, directory.stat().st_ino}
        file.unlink()
        directory.rmdir()
        for attempt in range(3):
            for handle in handles:
                self.assert_errno(errno.ESTALE, open_handle, self.root, handle)
            for number in range(50):
                (self.root / f"file {attempt} {number}").touch()
                (self.root / f"directory {attempt} {number}").mkdir()
            self.assertTrue(old.isdisjoint(entry.inode() for entry in os.scandir(self.root)))
            if attempt == 0:
                self.remount()
            elif attempt == 1:
                self.primary.kill()
                self.mount_it()
        self.primary.unmount()

    def test_a_handle_outlives_a_crash(self):
        self.make_tree()
        file = self.root / "a" / "b" / "file"
        handle, directory = handle_of(file), handle_of(file.parent)
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        self.primary.kill()
        self.mount_it()
        self.assertEqual(content_of(self.root, handle), b"content")
        above = open_handle(self.root, directory)
        self.assertEqual(sorted(os.listdir(above)), ["c", "file"])
        os.close(above)
        self.primary.unmount()
        self.assert_clean(self.image)

    def test_a_handle_that_never_was(self):
        self.make_tree()
        handle = handle_of(self.root / "a" / "b" / "file")
        for number in range(0, 32):
            wrong = bytearray(handle)
            wrong[8 + number % 12] ^= 1 << (number % 8)
            try:
                descriptor = open_handle(self.root, bytes(wrong), os.O_PATH)
            except OSError as error:
                self.assertEqual(error.errno, errno.ESTALE)
                continue
            # It may name another inode that exists.
            self.assertNotEqual(os.fstat(descriptor).st_ino, (self.root / "a" / "b" / "file").stat().st_ino)
            os.close(descriptor)
        self.primary.unmount()


class AtTheMirror(TarnTest):
    def test_the_same_handles_hold_there(self):
        port = harness.free_port()
        mirror = self.start_mirror(port)
        image = self.make_volume(size="64M")
        primary = self.mount(image, mirror=port)
        (primary.mountpoint / "a" / "b").mkdir(parents=True)
        (primary.mountpoint / "a" / "file").write_bytes(b"old")
        (primary.mountpoint / "a" / "doomed").write_bytes(b"doomed")
        harness.tarn("cp", "--mirror", primary.mountpoint)
        handles = {}
        for name in ("a", "a/b", "a/file", "a/doomed"):
            handles[name] = handle_of(mirror.mountpoint / name)
            self.assertEqual(handles[name], handle_of(primary.mountpoint / name))
        self.assertEqual(content_of(mirror.mountpoint, handles["a/file"]), b"old")
        (primary.mountpoint / "a" / "file").write_bytes(b"new content")
        os.rename(primary.mountpoint / "a" / "file", primary.mountpoint / "moved")
        (primary.mountpoint / "a" / "doomed").unlink()
        harness.tarn("cp", "--mirror", primary.mountpoint)
        self.assertEqual(content_of(mirror.mountpoint, handles["a/file"]), b"new content")
        self.assert_errno(errno.ESTALE, open_handle, mirror.mountpoint, handles["a/doomed"])
        below = open_handle(mirror.mountpoint, handles["a/b"])
        self.assertEqual(os.listdir(os.path.join(f"/proc/self/fd/{below}", "..")), ["b"])
        os.close(below)
        primary.unmount()
        mirror.terminate()
        mirror = self.start_mirror(port)
        self.assertEqual(content_of(mirror.mountpoint, handles["a/file"]), b"new content")
        self.assert_errno(errno.ESTALE, open_handle, mirror.mountpoint, handles["a/doomed"])
        mirror.terminate()


if __name__ == "__main__":
    harness.main()
