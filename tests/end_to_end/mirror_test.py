#!/usr/bin/env python3
"""The mirror has what the primary has: content, modes, owners, times, links, xattrs and ACLs."""

import contextlib
import errno
import fcntl
import mmap
import os
import stat

import harness
from harness import TarnTest, free_port, poll, run, tarn

# rsync reads all of it on both sides.
HOLE_BYTES = 5 << 30 if harness.FULL else 100 << 20


def build_tree(root, random):
    """A tree with something of everything."""
    root.mkdir()
    for number in range(30):
        directory = root / f"directory-{number % 5}" / f"below-{number}"
        directory.mkdir(parents=True)
        for index in range(20):
            size = random.choice((0, 1, 100, 4095, 4096, 4097, 40_000))
            (directory / f"file-{index}").write_bytes(random.randbytes(size))
    (root / "large").write_bytes(random.randbytes(20 << 20))
    with open(root / "sparse", "wb") as file:
        os.pwrite(file.fileno(), b"end", HOLE_BYTES)
    for number in range(5):
        os.link(root / "large", root / f"directory-{number}" / "link to large")
        os.symlink("../large", root / f"directory-{number}" / "symlink")
    os.mkfifo(root / "fifo", 0o600)
    os.mknod(root / "device", stat.S_IFCHR | 0o620, os.makedev(10, 229))
    os.setxattr(root / "large", "user.comment", random.randbytes(30_000))
    os.setxattr(root / "directory-1", "user.comment", b"of a directory")
    run("setfacl", "-m", "u:4711:rwx", root / "directory-2")
    run("setfacl", "-d", "-m", "g:4712:r-x", root / "directory-2")
    (root / "directory-2" / "inherits").touch()
    for number in range(20):
        path = root / "directory-3" / "below-3" / f"file-{number}"
        os.chown(path, 1000 + number, 4_000_000_000 + number)
        os.chmod(path, 0o4000 | (number << 3) | number)
        os.utime(path, ns=(10**18 + number, -(10**17) - number))


def change_tree(root, random):
    """What a day does to a tree: changes inside files, renames, deletions, new things."""
    for number in range(10):
        path = root / f"directory-{number % 5}" / f"below-{number}" / "file-7"
        with open(path, "r+b") as file:
            file.seek(random.randrange(100_000))
            file.write(random.randbytes(5000))
    with open(root / "large", "r+b") as file:
        file.seek(7 << 20)
        file.write(random.randbytes(1 << 20))
        file.truncate(15 << 20)
    os.rename(root / "directory-4", root / "directory-0" / "moved")
    run("rm", "-r", root / "directory-1")
    (root / "directory-1").write_text("a file where a directory was")
    os.unlink(root / "fifo")
    os.removexattr(root / "large", "user.comment")
    os.unlink(root / "directory-3" / "symlink")
    os.symlink("elsewhere", root / "directory-3" / "symlink")


class Mirror(TarnTest):
    def setUp(self):
        super().setUp()
        self.port = free_port()
        self.image = self.make_volume(size="2G")

    def both(self):
        self.mirror = self.start_mirror(self.port)
        self.primary = self.mount(self.image, options="dev,suid", mirror=self.port)
        return self.primary.mountpoint, self.mirror.mountpoint

    def assert_mirrored(self):
        tarn("cp", "--mirror", self.primary.mountpoint)
        self.assert_same_tree(self.primary.mountpoint, self.mirror.mountpoint)

    def test_a_tree_its_changes_and_its_end(self):
        source, copy = self.both()
        build_tree(source / "tree", self.random)
        self.assert_mirrored()
        self.assertEqual((copy / "sparse").exists(), False)
        self.assertLess((copy / "tree" / "sparse").stat().st_blocks, 1000)
        for _ in range(2):
            change_tree(source / "tree", self.random)
            self.assert_mirrored()
            run("rm", "-r", source / "tree")
            build_tree(source / "tree", self.random)
        self.assert_mirrored()
        self.primary.unmount()
        self.mirror.terminate()
        self.assert_clean(self.image)
        self.assert_clean(self.directory / "mirror.tarnfs")

    def test_the_first_copy_has_allocated_blocks_only(self):
        self.primary = self.mount(self.image)
        build_tree(self.primary.mountpoint / "tree", self.random)
        self.primary.unmount()
        source, copy = self.both()
        tarn("cp", "--mirror", source)
        self.assertTrue((copy / "tree" / "large").exists())
        self.assert_same_tree(source, copy)
        used_bytes = self.primary.status()["used_bytes"]
        stored_bytes = (self.directory / "mirror.tarnfs").stat().st_blocks * 512
        self.assertLess(stored_bytes, used_bytes + (8 << 20))

    def test_a_mirror_that_comes_late_or_was_away(self):
        self.primary = self.mount(self.image, options="dev,suid", mirror=self.port)
        source = self.primary.mountpoint
        build_tree(source / "tree", self.random)
        tarn("cp", source)
        self.mirror = self.start_mirror(self.port)
        self.assert_mirrored()
        self.mirror.terminate()
        change_tree(source / "tree", self.random)
        tarn("cp", source)
        self.mirror = self.start_mirror(self.port)
        self.assertTrue((self.mirror.mountpoint / "tree" / "large").exists(), "its last state is shown at once")
        self.assert_mirrored()

    def test_status_on_both_sides(self):
        source, copy = self.both()
        (source / "file").write_bytes(b"x" * 100_000)
        tarn("cp", "--mirror", source)
        primary, mirror = self.primary.status(), self.mirror.status()
        for name in ("volume", "role", "epoch", "cp", "root", "image", "size_bytes", "used_bytes", "errors"):
            self.assertIn(name, primary)
            self.assertIn(name, mirror)
        self.assertEqual((primary["role"], mirror["role"]), ("primary", "mirror"))
        for name in ("volume", "epoch", "cp", "root", "size_bytes", "used_bytes"):
            self.assertEqual(primary[name], mirror[name], name)
        peer = primary["mirrors"][0]
        self.assertEqual(peer["state"], "live")
        self.assertEqual(peer["published_cp"], primary["cp"])
        self.assertEqual((peer["lag_cps"], peer["lag_bytes"]), (0, 0))
        self.assertGreater(peer["sent_bytes"], 100_000)
        self.assertLess(peer["wire_bytes"], 100_000, "x repeated is compressed on the wire")
        self.mirror.terminate()
        poll(lambda: self.primary.status()["mirrors"][0]["state"] == "connecting", "the loss of the mirror to be seen")

    def test_the_mirror_is_read_only(self):
        source, copy = self.both()
        (source / "file").write_text("content")
        tarn("cp", "--mirror", source)
        for change in (
            lambda: (copy / "file").write_text("other"),
            lambda: os.unlink(copy / "file"),
            lambda: os.mkdir(copy / "directory"),
            lambda: os.setxattr(copy / "file", "user.x", b""),
            lambda: os.chmod(copy / "file", 0o600),
        ):
            with self.assertRaises(OSError) as caught:
                change()
            self.assertEqual(caught.exception.errno, errno.EROFS)

    def test_open_files_at_the_mirror_see_each_new_state(self):
        source, copy = self.both()
        (source / "file").write_bytes(b"0" * 10_000)
        (source / "directory").mkdir()
        tarn("cp", "--mirror", source)
        with open(copy / "file", "rb", buffering=0) as file:
            directory = os.open(copy / "directory", os.O_RDONLY)
            for round_number in range(1, 30):
                size = 10_000 + round_number * 777
                (source / "file").write_bytes(b"%d" % (round_number % 10) * size)
                (source / "directory" / str(round_number)).touch()
                tarn("cp", "--mirror", source)
                self.assertEqual(os.pread(file.fileno(), 1 << 20, 0), b"%d" % (round_number % 10) * size)
                self.assertEqual(os.fstat(file.fileno()).st_size, size)
                self.assertEqual(len(os.listdir(directory)), round_number)
            os.close(directory)

    def test_the_mirror_shows_no_times_that_the_primary_never_had(self):
        """The kernel keeps the times of what is written. The daemon noted times of its own for what came to it as a
        request, a moment later than the kernel's: where the kernel had sent its own before, they stayed for good."""
        source, copy = self.both()
        page = mmap.mmap(-1, 4096)
        origin = os.open(source / "origin", os.O_RDWR | os.O_CREAT)
        self.addCleanup(os.close, origin)
        os.pwrite(origin, bytes(4096), 0)

        def write_past_the_cache(file):
            fcntl.fcntl(file, fcntl.F_SETFL, os.O_DIRECT)
            os.pwrite(file, page, 4096)

        changes = {
            "allocated": lambda file: os.posix_fallocate(file, 0, 8192),
            "direct": write_past_the_cache,
            "copied": lambda file: os.copy_file_range(origin, file, 4096, 0, 0),
            "as long": lambda file: os.truncate(f"/proc/self/fd/{file}", 0),
        }
        for name, change in changes.items():
            with self.subTest(name), contextlib.ExitStack() as files:
                shown = {}
                for number in range(200):
                    file = os.open(source / f"{name}-{number}", os.O_WRONLY | os.O_CREAT)
                    files.callback(os.close, file)
                    before = os.fstat(file)
                    change(file)
                    shown[copy / f"{name}-{number}"] = (before, os.fstat(file))
                # They are still open, so the kernel need not have sent its times.
                tarn("cp", "--mirror", source)
                for path, states in shown.items():
                    there = path.stat()
                    self.assertIn(there.st_mtime_ns, {state.st_mtime_ns for state in states}, path.name)
                    self.assertIn(there.st_ctime_ns, {state.st_ctime_ns for state in states}, path.name)


if __name__ == "__main__":
    harness.main()
