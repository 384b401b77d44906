#!/usr/bin/env python3
"""FS_IOC_SHUTDOWN on a real mount: a power cut for one volume. What was fsynced is there again after the next mount."""

import errno
import fcntl
import os

import harness
from harness import TarnTest, errno_as_user, poll, tarn

FS_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)


def shut_down(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, FS_IOC_SHUTDOWN, b"\0\0\0\0")
    finally:
        os.close(descriptor)


def write_durably(path, content):
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


class Shutdown(TarnTest):
    def assert_shut_down(self):
        mountpoint = self.daemon.mountpoint
        self.assert_errno(errno.EIO, lambda: os.stat(mountpoint / "a name that nobody asked for"))
        self.assert_errno(errno.EIO, lambda: os.mkdir(mountpoint / "new"))
        self.assert_errno(errno.EIO, lambda: os.listdir(mountpoint))
        status = self.daemon.status()
        self.assertEqual(status["stop_reason"], "shut down by FS_IOC_SHUTDOWN")
        self.assertTrue(status["read_only"])

    def test_what_was_fsynced_is_kept(self):
        image = self.make_volume()
        self.daemon = self.mount(image, options="cp_interval=3600")
        mountpoint = self.daemon.mountpoint
        kept = self.random.randbytes(300_000)
        write_durably(mountpoint / "kept", kept)
        (mountpoint / "lost").write_bytes(b"x" * 10_000_000)
        # Dirty pages that only the kernel has, of a file that stays open beyond the shutdown.
        with open(mountpoint / "open", "wb", buffering=0) as dirty:
            os.fsync(dirty.fileno())
            dirty.write(b"y" * 1_000_000)
            cp = self.daemon.status()["cp"]
            shut_down(mountpoint)
            self.assert_shut_down()
            self.assert_errno(errno.EIO, lambda: os.fsync(dirty.fileno()))
        self.assertEqual(self.daemon.status()["cp"], cp)
        tarn("cp", mountpoint, expect=1)
        self.daemon.unmount()
        self.assert_clean(image)

        self.daemon = self.mount(image)
        self.assertTrue((mountpoint / "kept").read_bytes() == kept, "what was fsynced has other content")
        self.assertEqual((mountpoint / "open").read_bytes(), b"")
        (mountpoint / "after").write_text("a volume as any other")
        self.daemon.unmount()
        self.assert_clean(image)

    def test_from_any_inode_and_by_root_alone(self):
        image = self.make_volume()
        for name in ("file", "directory"):
            self.daemon = self.mount(image)
            mountpoint = self.daemon.mountpoint
            (mountpoint / "directory").mkdir(exist_ok=True)
            write_durably(mountpoint / "file", b"content")
            descriptor = os.open(mountpoint / name, os.O_RDONLY)
            refused = errno_as_user(1234, lambda: fcntl.ioctl(descriptor, FS_IOC_SHUTDOWN, b"\0\0\0\0"))
            os.close(descriptor)
            self.assertEqual(refused, errno.EPERM)
            self.assertEqual(self.daemon.status()["stop_reason"], "")
            shut_down(mountpoint / name)
            self.assert_shut_down()
            self.daemon.unmount()
            self.assert_clean(image)

    def test_under_load(self):
        image = self.make_volume()
        self.daemon = self.mount(image, options="cp_interval=0.05")
        mountpoint = self.daemon.mountpoint
        children = []
        for number in range(3):
            child = os.fork()
            if child == 0:
                try:
                    for turn in range(1_000_000):
                        write_durably(mountpoint / f"{number}-{turn}", bytes([number]) * (turn % 20_000))
                        os.rename(mountpoint / f"{number}-{turn}", mountpoint / f"{number}")
                        (mountpoint / f"{number}-loose").write_bytes(b"z" * 200_000)
                except OSError as error:
                    os._exit(error.errno)
                os._exit(0)
            children.append(child)
        poll(lambda: self.daemon.status()["cp"] > 5, "some consistency points")
        shut_down(mountpoint)
        for child in children:
            self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), errno.EIO)
        self.assert_shut_down()
        self.daemon.unmount()
        self.assert_clean(image)
        self.daemon = self.mount(image)
        for number in range(3):
            self.assertEqual(set((mountpoint / f"{number}").read_bytes()) - {number}, set())
        self.daemon.unmount()
        self.assert_clean(image)


if __name__ == "__main__":
    harness.main()
