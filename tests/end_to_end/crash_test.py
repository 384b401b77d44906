#!/usr/bin/env python3
"""kill -9 of either daemon at random moments under load.

After each: fsck finds nothing, the image mounts at a published root, what fsync promised is there, the mirror catches
up, and both roots are equal. The number of kills is TARNFS_TEST_KILLS (6, at full size 50).

And kill -9 right after single calls, on mounts with `dirsync` and `sync`: what these promise is there.
"""

import ctypes
import hashlib
import mmap
import os
import random
import stat
import threading
import time

import harness
from harness import TarnTest, free_port, poll, tarn

KILLS = int(os.environ.get("TARNFS_TEST_KILLS", 50 if harness.FULL else 6))


class Load:
    """Threads that change a tree until told to stop or until the mount dies, and what fsync promised them."""

    def __init__(self, root, seed):
        self.root = root
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.promised = {}  # path -> hash of its content, or None when its removal was made durable
        self.operations = 0
        self.error = None
        self.threads = [
            threading.Thread(target=self.work, args=(random.Random(seed + index), index)) for index in range(3)
        ]
        for thread in self.threads:
            thread.start()

    def work(self, dice, index):
        directory = self.root / f"worker-{index}"
        directory.mkdir(exist_ok=True)
        try:
            while not self.stop.is_set():
                self.one_operation(dice, directory)
                self.operations += 1
        except OSError as error:
            # When the daemon was killed that is how a worker learns of it.
            self.error = error
            self.stop.set()

    def one_operation(self, dice, directory):
        path = directory / f"file-{dice.randrange(60)}"
        kind = dice.randrange(10)
        if kind < 4:
            self.replace_durably(dice, path)
        elif kind < 7:
            with open(directory / f"scratch-{dice.randrange(20)}", "ab") as file:
                file.write(dice.randbytes(dice.randrange(200_000)))
        elif kind == 7:
            old, new = (directory / f"d-{dice.randrange(10)}" for _ in range(2))
            if new.exists():
                new.rmdir()
            old.mkdir(exist_ok=True)
            os.rename(old, new)
        elif kind == 8:
            scratch = directory / f"scratch-{dice.randrange(20)}"
            scratch.unlink(missing_ok=True)
        else:
            self.remove_durably(path)

    def replace_durably(self, dice, path):
        content = dice.randbytes(dice.randrange(1, 60_000))
        temporary = path.with_name("new")
        with self.lock:
            self.promised.pop(path, None)  # from here on old or new is right
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
        sync_directory(path.parent)
        with self.lock:
            self.promised[path] = hashlib.sha256(content).digest()

    def remove_durably(self, path):
        with self.lock:
            self.promised.pop(path, None)
        path.unlink(missing_ok=True)
        sync_directory(path.parent)
        with self.lock:
            self.promised[path] = None

    def join(self):
        self.stop.set()
        for thread in self.threads:
            thread.join()


def sync_directory(path):
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Crash(TarnTest):
    def check_promises(self, load):
        for path, digest in load.promised.items():
            if digest is None:
                self.assertFalse(path.exists(), f"{path} came back after its removal was made durable")
            else:
                self.assertTrue(path.exists(), f"{path} was made durable and is gone")
                self.assertEqual(hashlib.sha256(path.read_bytes()).digest(), digest, f"{path} has other content")

    def roots(self):
        primary, mirror = self.primary.status(), self.mirror.status()
        return (primary["epoch"], primary["cp"], primary["root"]), (mirror["epoch"], mirror["cp"], mirror["root"])

    def assert_mirror_catches_up(self):
        tarn("cp", "--mirror", self.primary.mountpoint)

        def equal():
            primary, mirror = self.roots()
            return primary == mirror

        poll(equal, "both roots to be equal")

    def kill_primary(self, load):
        self.primary.kill()
        load.join()
        self.assert_clean(self.image)
        self.primary = self.mount(self.image, options="cp_interval=1", mirror=self.port)
        self.check_promises(load)

    def kill_mirror(self, load):
        self.mirror.kill()
        self.assert_clean(self.directory / "mirror.tarnfs")
        self.mirror = self.start_mirror(self.port)
        self.assertEqual(self.primary.process.poll(), None, "the primary outlives its mirror")
        load.join()
        self.assertIsNone(load.error, "nothing fails at the primary when the mirror dies")
        self.check_promises(load)

    def test_kill_either_daemon_under_load(self):
        self.port = free_port()
        self.image = self.make_volume(size="4G")
        self.mirror = self.start_mirror(self.port)
        self.primary = self.mount(self.image, options="cp_interval=1", mirror=self.port)
        tarn("cp", "--mirror", self.primary.mountpoint)
        for number in range(KILLS):
            load = Load(self.primary.mountpoint, harness.SEED + number)
            try:
                # The random moment: after some operations and then some time.
                operations = self.random.randrange(1, 400)
                poll(lambda: load.operations >= operations or load.error, "the load to work")
                self.assertIsNone(load.error, self.primary.log_text())
                time.sleep(self.random.random() * 0.3)
                victim = self.random.choice((self.kill_primary, self.kill_mirror))
                print(f"kill {number + 1} of {KILLS}: {victim.__name__} after {load.operations} operations", flush=True)
                victim(load)
            finally:
                load.join()
            self.assert_mirror_catches_up()
            self.assert_same_tree(self.primary.mountpoint, self.mirror.mountpoint)
        self.primary.unmount()
        self.mirror.terminate()
        self.assert_clean(self.image)
        self.assert_clean(self.directory / "mirror.tarnfs")

    def test_kill_both_during_the_first_copy(self):
        self.port = free_port()
        self.image = self.make_volume(size="4G")
        self.primary = self.mount(self.image)
        for number in range(30):
            (self.primary.mountpoint / f"file-{number}").write_bytes(self.random.randbytes(10 << 20))
        self.primary.unmount()
        for daemon_to_kill in ("primary", "mirror", "both"):
            self.mirror = self.start_mirror(self.port)
            self.primary = self.mount(self.image, mirror=self.port)
            sent = self.random.randrange(1 << 20, 100 << 20)
            poll(
                lambda: self.primary.status()["mirrors"][0]["sent_bytes"] >= sent
                or self.primary.status()["mirrors"][0]["state"] == "live",
                "the first copy to be under way",
            )
            if daemon_to_kill != "mirror":
                self.primary.kill()
            if daemon_to_kill != "primary":
                self.mirror.kill()
            if self.primary.process.poll() is None:
                self.primary.unmount()
            if self.mirror.process.poll() is None:
                self.mirror.terminate()
            self.assert_clean(self.image)
        self.mirror = self.start_mirror(self.port)
        self.primary = self.mount(self.image, mirror=self.port)
        self.assert_mirror_catches_up()
        self.assert_same_tree(self.primary.mountpoint, self.mirror.mountpoint)
        self.primary.unmount()
        self.mirror.terminate()
        self.assert_clean(self.directory / "mirror.tarnfs")


LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, RENAME_EXCHANGE, RENAME_WHITEOUT = -100, 2, 4
FALLOCATED_BYTES = 1 << 20


def rename_with(flags, old, new):
    if LIBC.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def write_directly(path):
    """A page by O_DIRECT, which takes aligned memory."""
    page = mmap.mmap(-1, 4096)
    page.write(b"d" * 4096)
    descriptor = os.open(path, os.O_WRONLY | os.O_DIRECT)
    try:
        os.write(descriptor, page)
    finally:
        os.close(descriptor)


def write_through_the_cache(path):
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, b"written")
    finally:
        os.close(descriptor)


def allocate(path):
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.posix_fallocate(descriptor, 0, FALLOCATED_BYTES)
    finally:
        os.close(descriptor)


def copy_content(old, new):
    with open(old, "rb") as source, open(new, "r+b") as target:
        os.copy_file_range(source.fileno(), target.fileno(), 4096)


class PowerCut(TarnTest):
    """The daemon is killed as soon as a call has returned."""

    # What is done, and whether one sees it: each call is the last one before a kill.
    NAMES = {
        "mkdir": (lambda top: (top / "made").mkdir(), lambda top: (top / "made").is_dir()),
        "mknod": (lambda top: os.mknod(top / "fifo", stat.S_IFIFO | 0o600), lambda top: (top / "fifo").is_fifo()),
        "create": (lambda top: (top / "new").touch(), lambda top: (top / "new").is_file()),
        "symlink": (lambda top: (top / "symlink").symlink_to("x"), lambda top: (top / "symlink").is_symlink()),
        "link": (lambda top: os.link(top / "file", top / "linked"), lambda top: (top / "linked").stat().st_nlink == 2),
        "rename": (lambda top: (top / "a").rename(top / "d" / "a"), lambda top: (top / "d" / "a").exists()),
        "replace": (lambda top: (top / "d" / "a").rename(top / "b"), lambda top: not (top / "d" / "a").exists()),
        "exchange": (
            lambda top: rename_with(RENAME_EXCHANGE, top / "c", top / "d"),
            lambda top: (top / "c").is_dir() and (top / "d").is_file(),
        ),
        "whiteout": (
            lambda top: rename_with(RENAME_WHITEOUT, top / "d", top / "e"),
            lambda top: (top / "e").is_file() and (top / "d").is_char_device(),
        ),
        "unlink": (lambda top: (top / "e").unlink(), lambda top: not (top / "e").exists()),
        "rmdir": (lambda top: (top / "made").rmdir(), lambda top: not (top / "made").exists()),
    }
    OTHERS = {
        "chmod": (lambda top: (top / "file").chmod(0o751), lambda top: (top / "file").stat().st_mode & 0o777 == 0o751),
        "chown": (lambda top: os.chown(top / "file", 7, 8), lambda top: (top / "file").stat().st_uid == 7),
        "utimes": (lambda top: os.utime(top / "file", (1, 2)), lambda top: (top / "file").stat().st_mtime == 2),
        "setxattr": (
            lambda top: os.setxattr(top / "file", "user.x", b"y"),
            lambda top: os.listxattr(top / "file") == ["user.x"],
        ),
        "removexattr": (
            lambda top: os.removexattr(top / "file", "user.x"),
            lambda top: os.listxattr(top / "file") == [],
        ),
        "truncate": (lambda top: os.truncate(top / "file", 3), lambda top: (top / "file").read_bytes() == b"con"),
        "write": (
            lambda top: write_through_the_cache(top / "file"),
            lambda top: (top / "file").read_bytes() == b"written",
        ),
        "direct write": (
            lambda top: write_directly(top / "file"),
            lambda top: (top / "file").read_bytes() == b"d" * 4096,
        ),
        "copy_file_range": (
            lambda top: copy_content(top / "file", top / "copy"),
            lambda top: (top / "copy").read_bytes() == b"d" * 4096,
        ),
        "fallocate": (
            lambda top: allocate(top / "file"),
            lambda top: (top / "file").stat().st_blocks * 512 >= FALLOCATED_BYTES,
        ),
    }

    def setUp(self):
        super().setUp()
        self.image = self.make_volume(size="64M")
        primary = self.mount(self.image)
        (primary.mountpoint / "file").write_text("content")
        (primary.mountpoint / "d").mkdir()
        for name in ("a", "b", "c", "copy"):
            (primary.mountpoint / name).touch()
        primary.unmount()

    def seen_after_a_kill(self, options, act, is_done):
        primary = self.mount(self.image, options=f"cp_interval=3600,{options}")
        act(primary.mountpoint)
        self.assertTrue(is_done(primary.mountpoint))
        primary.kill()
        self.assert_clean(self.image)
        primary = self.mount(self.image)
        try:
            return is_done(primary.mountpoint)
        finally:
            primary.unmount()

    def check(self, options, calls):
        for call, (act, is_done) in calls.items():
            self.assertTrue(self.seen_after_a_kill(options, act, is_done), f"{call} with {options}")

    def test_names_with_dirsync(self):
        self.check("dirsync", self.NAMES)

    def test_all_with_sync(self):
        self.check("async,sync", self.NAMES | self.OTHERS)

    def test_nothing_is_promised_without(self):
        """What the other tests see comes of the option: with these one call is lost like the other."""
        self.assertFalse(self.seen_after_a_kill("sync,async", *self.NAMES["mkdir"]))
        self.assertFalse(self.seen_after_a_kill("dirsync", *self.OTHERS["chmod"]))


if __name__ == "__main__":
    harness.main()
