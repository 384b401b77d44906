#!/usr/bin/env python3
"""Mounting and unmounting: in the background, through mount(8), and how long it takes."""

import ctypes
import errno
import hashlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import time
from pathlib import Path

import harness
from harness import TarnTest, mount_entry, poll, program, run

LIBC = ctypes.CDLL(None, use_errno=True)
FILES = 1_000_000 if harness.FULL else 20_000
MOUNT_SECONDS_MAX = 0.2
ROUNDS = 5


def daemons_of(image):
    """Processes that have the image open."""
    found = []
    for process in os.listdir("/proc"):
        if process.isdigit():
            try:
                links = [os.readlink(f"/proc/{process}/fd/{name}") for name in os.listdir(f"/proc/{process}/fd")]
            except OSError:
                continue  # it ended meanwhile
            if str(image) in links:
                found.append(int(process))
    return found


class Background(TarnTest):
    def mount_in_background(self, image, mountpoint, *options):
        run(program("tarnfs"), *options, image, mountpoint, seconds=60)
        return daemons_of(image)[0]

    def test_the_mount_is_usable_when_tarnfs_returns(self):
        image = self.make_volume(size="64M")
        mountpoint = self.make_directory("mount")
        for number in range(10):
            daemon = self.mount_in_background(image, mountpoint)
            (mountpoint / f"file-{number}").write_text("content")
            self.assertEqual(len(os.listdir(mountpoint)), number + 1)
            self.assertEqual(mount_entry(mountpoint)[1:], ("fuse.tarnfs", str(image)))
            run("umount", "-i", mountpoint)
            # Without the helper umount may return first: the next mount waits for the old daemon.
            self.assertIsInstance(daemon, int)
        poll(lambda: not daemons_of(image), "the daemon to end")
        self.assert_clean(image)

    def test_a_daemon_ends_on_a_signal(self):
        image = self.make_volume(size="64M")
        primary = self.mount(image)
        (primary.mountpoint / "file").write_text("content")
        primary.terminate()
        self.assertIsNone(mount_entry(primary.mountpoint))
        self.assert_clean(image)
        primary = self.mount(image, options="ro")
        self.assertEqual((primary.mountpoint / "file").read_text(), "content")
        with self.assertRaises(OSError):
            (primary.mountpoint / "file").write_text("other")
        primary.unmount()

    def test_a_daemon_that_is_killed_while_it_mounts(self):
        """It asks its own mount for something, and once nothing could end it while it waited for itself."""
        image = self.make_volume(size="64M")
        for _ in range(20):
            daemon = self.mount(image, started=False)
            started = time.monotonic()
            poll(lambda end=started + self.random.uniform(0, 0.03): time.monotonic() > end, "a moment of its start")
            daemon.kill()
        self.assert_clean(image)


class OnABlockDevice(TarnTest):
    """Nobody kept mkfs.ext4 from making its file system on a volume that was mounted."""

    def setUp(self):
        super().setUp()
        self.image = self.make_volume(size="64M")
        self.device = self.loop_device(self.image)

    def claim(self):
        return os.open(self.device, os.O_RDONLY | os.O_EXCL)

    def test_a_mounted_device_is_nobody_elses(self):
        primary = self.mount(self.device)
        self.assert_errno(errno.EBUSY, self.claim)
        self.assert_one_line_error(run(program("mkfs.tarnfs"), "-f", self.device, expect=1), "in use")
        primary.unmount()
        os.close(self.claim())
        self.assert_clean(self.device)
        primary = self.mount(self.device, options="ro")
        primary.unmount()

    def test_umount_waits_for_the_last_consistency_point(self):
        """umount(2) itself: no helper is called."""
        for number in range(5):
            primary = self.mount(self.device, options="cp_interval=3600")
            self.assertEqual(mount_entry(primary.mountpoint)[1:], ("fuseblk.tarnfs", str(self.device)))
            (primary.mountpoint / f"file-{number}").write_bytes(os.urandom(1 << 20))
            self.assertEqual(LIBC.umount2(bytes(primary.mountpoint), 0), 0)
            self.assert_clean(self.device)
            primary.wait()
        primary = self.mount(self.device)
        self.assertEqual(len(os.listdir(primary.mountpoint)), 5)
        primary.terminate()
        self.assertIsNone(mount_entry(primary.mountpoint))
        self.assert_clean(self.device)

    def test_what_syncfs_waited_for_is_durable(self):
        if "libfuse3" in run("ldd", program("tarnfs")).stdout:
            self.skipTest("the system's libfuse does not pass on syncfs(2)")
        if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 18):
            self.skipTest("this kernel does not pass on syncfs(2)")
        primary = self.mount(self.device, options="cp_interval=3600")
        content = os.urandom(3 << 20)
        (primary.mountpoint / "file").write_bytes(content)
        directory = os.open(primary.mountpoint, os.O_RDONLY)
        self.assertEqual(LIBC.syncfs(directory), 0)
        os.close(directory)
        primary.kill()
        primary = self.mount(self.device)
        self.assertEqual((primary.mountpoint / "file").read_bytes(), content)
        primary.unmount()
        primary = self.mount(self.device, options="ro")
        directory = os.open(primary.mountpoint, os.O_RDONLY)
        self.assertEqual(LIBC.syncfs(directory), 0)
        os.close(directory)
        primary.unmount()

    def test_a_device_that_somebody_has_is_not_touched(self):
        claimed = self.claim()
        try:
            mountpoint = self.make_directory("mount")
            for command in (("mkfs.tarnfs", "-f", self.device), ("tarnfs", self.device, mountpoint)):
                refused = run(program(command[0]), *command[1:], expect=1)
                self.assert_one_line_error(refused, "part of another device")
        finally:
            os.close(claimed)
        self.assert_clean(self.device)


HELPERS = [
    *("mount.tarnfs", "mount.fuse.tarnfs", "mount.fuseblk.tarnfs"),
    *("umount.fuse.tarnfs", "umount.fuseblk.tarnfs"),
]


class Helpers(TarnTest):
    """mount(8) and umount(8), with their helpers in a /sbin of this test's own mount namespace."""

    def setUp(self):
        super().setUp()
        self.image = self.make_volume(size="64M")
        self.mountpoint = self.make_directory("mount")
        upper, work = self.make_directory("upper"), self.make_directory("work")
        tools = os.path.realpath("/sbin")
        layers = f"lowerdir={tools},upperdir={upper},workdir={work}"
        if run("mount", "-t", "overlay", "overlay", "-o", layers, tools, expect=None).returncode != 0:
            self.skipTest("no overlay file system here: the helpers cannot be put into /sbin of a namespace")
        self.addCleanup(run, "umount", "-l", tools)
        for name in HELPERS:
            Path(tools, name).unlink(missing_ok=True)
            os.symlink(program(name), f"{tools}/{name}")

    def test_mount_and_umount(self):
        for kind in ("tarnfs", "fuse.tarnfs"):
            for number in range(5):
                run("mount", "-t", kind, "-o", "cp_interval=60,noatime", self.image, self.mountpoint)
                self.assertEqual(mount_entry(self.mountpoint)[1:], ("fuse.tarnfs", str(self.image)))
                (self.mountpoint / f"{kind}-{number}").write_bytes(os.urandom(1 << 20))
                run("umount", self.mountpoint)
                self.assertEqual(daemons_of(self.image), [], "umount returns when the daemon has gone")
                self.assert_clean(self.image)
        run("mount", "-t", "tarnfs", "-o", "ro", self.image, self.mountpoint)
        self.assertEqual(len(os.listdir(self.mountpoint)), 10)
        run("umount", self.image)
        self.assertIsNone(mount_entry(self.mountpoint))

    def test_a_block_device(self):
        device = self.loop_device(self.image)
        second = self.make_directory("second")
        run("mount", "-t", "tarnfs", "-o", "cp_interval=3600", device, self.mountpoint)
        (self.mountpoint / "file").write_text("content")
        run("mount", "-t", "tarnfs", device, second)
        self.assertEqual((second / "file").read_text(), "content")
        run("umount", second)
        run("mount", "-o", "remount,ro", self.mountpoint)
        self.assert_errno(errno.EROFS, (self.mountpoint / "other").touch)
        run("mount", "-o", "remount,rw", self.mountpoint)
        (self.mountpoint / "other").touch()
        run("umount", self.mountpoint)
        self.assertEqual(daemons_of(device), [])
        self.assert_clean(device)

    def test_daemons_of_other_volumes_hang(self):
        """umount(8) and tarn asked all daemons, and waited five seconds for each that did not answer."""
        others = [self.mount(self.make_volume(f"other{n}.tarnfs"), f"other{n}") for n in range(2)]
        run("mount", "-t", "tarnfs", self.image, self.mountpoint)
        for other in others:
            other.process.send_signal(signal.SIGSTOP)
        try:
            started = time.monotonic()
            harness.tarn("cp", self.mountpoint)
            run("umount", self.mountpoint)
            seconds = time.monotonic() - started
        finally:
            for other in others:
                other.process.send_signal(signal.SIGCONT)
        self.assertLess(seconds, 5)
        self.assertEqual(daemons_of(self.image), [])
        self.assert_clean(self.image)

    def test_mounted_read_only_it_is_not_mounted_there_again(self):
        for again in (["mount", "-t", "tarnfs", "-o", "ro"], [program("tarnfs"), "-o", "ro"]):
            run("mount", "-t", "tarnfs", "-o", "ro", self.image, self.mountpoint)
            result = run(*again, self.image, self.mountpoint, expect=None)
            self.assertNotEqual(result.returncode, 0)
            self.assertIn("already", result.stderr)
            run("umount", self.mountpoint)
            self.assertIsNone(mount_entry(self.mountpoint))
        self.assertEqual(daemons_of(self.image), [])

    def test_over_the_mount_of_a_daemon_that_is_gone_it_is_told_what_to_do(self):
        run(program("tarnfs"), self.image, self.mountpoint)
        (self.mountpoint / "file").write_text("content")
        run(program("tarn"), "cp", self.mountpoint)
        (daemon,) = daemons_of(self.image)
        os.kill(daemon, signal.SIGKILL)
        for command in (["mount", "-t", "tarnfs"], [program("tarnfs")]):

            def is_told():
                result = run(*command, self.image, self.mountpoint, expect=None)
                self.assertNotEqual(result.returncode, 0)
                self.assertIn("unmount it first", result.stderr)
                return f"its daemon is gone; unmount it first: umount {self.mountpoint}" in result.stderr

            poll(is_told, "the kernel to let the image go")
        run("umount", self.mountpoint)
        run("mount", "-t", "tarnfs", self.image, self.mountpoint)
        self.assertEqual((self.mountpoint / "file").read_text(), "content")
        run("umount", self.mountpoint)

    def test_fstab(self):
        table = self.directory / "fstab"
        table.write_text(f"{self.image} {self.mountpoint} tarnfs noauto,cp_interval=60 0 0\n")
        run("mount", "--fstab", table, self.mountpoint)
        (self.mountpoint / "file").touch()
        run("umount", self.mountpoint)
        self.assertEqual(daemons_of(self.image), [])

    def test_a_busy_mount_stays(self):
        run("mount", "-t", "tarnfs", self.image, self.mountpoint)
        with open(self.mountpoint / "file", "wb"):
            result = run("umount", self.mountpoint, expect=None, seconds=60)
            self.assertNotEqual(result.returncode, 0)
            self.assertIn("busy", result.stderr)
        run("umount", self.mountpoint)

    def test_remount(self):
        run("mount", "-t", "tarnfs", "-o", "cp_interval=3600", self.image, self.mountpoint)
        (self.mountpoint / "file").write_text("content")
        with open(self.mountpoint / "open", "w"):
            result = run("mount", "-o", "remount,ro", self.mountpoint, expect=None)
            self.assertNotEqual(result.returncode, 0, "a file is open for writing")
        run("mount", "-o", "remount,ro", self.mountpoint)
        self.assert_errno(errno.EROFS, (self.mountpoint / "other").touch)
        copy = self.directory / "copy.tarnfs"
        shutil.copyfile(self.image, copy)
        run(program("fsck.tarnfs"), "-n", copy)
        second = self.make_directory("second")
        run("mount", "-t", "tarnfs", "-o", "ro", copy, second)
        self.assertEqual((second / "file").read_text(), "content", "the image had all of it")
        run("mount", "-o", "remount,rw", second)
        (second / "file").write_text("changed after it was mounted read-only")
        run("umount", second)
        self.assert_clean(copy)
        run("mount", "-o", "remount,rw", self.mountpoint)
        (self.mountpoint / "other").touch()
        run("umount", self.mountpoint)
        self.assert_clean(self.image)

    def test_remount_of_synchronous_mounts(self):
        """What is durable when it is answered is chosen with the mount: a remount keeps it, or says that it cannot."""

        def shown():
            line = next(x for x in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.mountpoint) in x)
            return set(line.split(" - ")[1].split()[2].split(",")) & {"sync", "dirsync"}

        refused = {"": ("sync", "dirsync"), "dirsync": ("sync",), "sync": ("async",)}
        for options, others in refused.items():
            run("mount", "-t", "tarnfs", "-o", f"cp_interval=3600,{options}", self.image, self.mountpoint)
            expected = {options} - {""}
            self.assertEqual(shown(), expected)
            for given in ("remount,noatime", "remount,ro", "remount,rw", f"remount,rw,{options}".rstrip(",")):
                run("mount", "-o", given, self.mountpoint)
                self.assertEqual(shown(), expected, given)
            # Of the options that are there mount(8) passes on none when it is given both words.
            run("mount", "-t", "tarnfs", "-o", "remount,rw", self.image, self.mountpoint)
            self.assertEqual(shown(), expected)
            for other in others:
                words = [self.image, self.mountpoint, "-o", f"remount,{other}"]
                result = run(program("mount.tarnfs"), *words, expect=1)
                self.assert_one_line_error(result, f"option {other}: a mounted volume cannot change it")
                # mount(8) keeps the word async to itself.
                result = run("mount", "-o", f"remount,{other}", self.mountpoint, expect=None)
                self.assertEqual(result.returncode != 0, other != "async")
                self.assertEqual(shown(), expected)
            (self.mountpoint / f"made with {options}").mkdir()
            run("umount", self.mountpoint)
        second = self.make_directory("second")
        run("mount", "-t", "tarnfs", self.image, self.mountpoint)
        result = run("mount", "-t", "tarnfs", "-o", "dirsync", self.image, second, expect=None)
        self.assertIn("option dirsync: a mounted volume cannot change it", result.stderr)
        self.assertIsNone(mount_entry(second))
        run("umount", self.mountpoint)
        self.assert_clean(self.image)

    def test_remount_read_write_after_a_crash(self):
        """A read-only mount shows what the journal has and writes nothing; read-write it goes on from there."""
        primary = self.mount(self.image, options="cp_interval=3600")
        with open(primary.mountpoint / "file", "w") as file:
            file.write("from the journal")
            file.flush()
            os.fsync(file.fileno())
            os.unlink(primary.mountpoint / "file")
            (primary.mountpoint / "kept").write_text("kept")
            directory = os.open(primary.mountpoint, os.O_RDONLY)
            os.fsync(directory)
            os.close(directory)
            primary.kill()
        before = hashlib.sha256(self.image.read_bytes()).digest()
        run("mount", "-t", "tarnfs", "-o", "ro", self.image, self.mountpoint)
        self.assertEqual(os.listdir(self.mountpoint), ["kept"])
        self.assertEqual(hashlib.sha256(self.image.read_bytes()).digest(), before)
        self.assert_errno(errno.EROFS, (self.mountpoint / "new").touch)
        run("mount", "-o", "remount,rw", self.mountpoint)
        with open(self.mountpoint / "new", "w") as file:
            file.write("new")
            file.flush()
            os.fsync(file.fileno())
        self.assertFalse(json.loads(harness.tarn("status", "--json", self.mountpoint).stdout)["read_only"])
        run("umount", self.mountpoint)
        self.assert_clean(self.image)
        run("mount", "-t", "tarnfs", "-o", "ro", self.image, self.mountpoint)
        self.assertEqual(sorted(os.listdir(self.mountpoint)), ["kept", "new"])
        self.assertEqual((self.mountpoint / "new").read_text(), "new")
        run("umount", self.mountpoint)

    def test_what_is_write_protected_is_mounted_read_only(self):
        device = self.loop_device(self.image)
        run("blockdev", "--setro", device)
        result = run("mount", "-t", "fuseblk.tarnfs", device, self.mountpoint)
        self.assertIn("write-protected, mounted read-only", result.stderr)
        self.assert_errno(errno.EROFS, (self.mountpoint / "new").touch)
        result = run("mount", "-o", "remount,rw", self.mountpoint, expect=None)
        self.assertNotEqual(result.returncode, 0)
        run("umount", self.mountpoint)
        result = run(program("tarnfs"), "-o", "mirror=tcp://127.0.0.1:1", device, self.mountpoint, expect=1)
        self.assertIn("leave out mirror=", result.stderr)
        run("blockdev", "--setrw", device)

    def test_without_the_journal(self):
        primary = self.mount(self.image)
        with open(primary.mountpoint / "file", "w") as file:
            os.fsync(file.fileno())
        primary.kill()
        run("mount", "-t", "tarnfs", "-o", "ro,norecovery", self.image, self.mountpoint)
        self.assertEqual(os.listdir(self.mountpoint), [])
        self.assertNotEqual(run("fstrim", self.mountpoint, expect=None).returncode, 0)
        result = run("mount", "-o", "remount,rw", self.mountpoint, expect=None)
        self.assertIn("mount it without norecovery", result.stderr)
        run("umount", self.mountpoint)
        result = run(program("tarnfs"), "-o", "norecovery", self.image, self.mountpoint, expect=2)
        self.assertIn("give ro too", result.stderr)
        run("mount", "-t", "tarnfs", "-o", "ro", self.image, self.mountpoint)
        self.assertEqual(os.listdir(self.mountpoint), ["file"])
        run("umount", self.mountpoint)

    def test_remount_read_write_of_what_cannot_be_written(self):
        run("mount", "--bind", self.directory, self.directory)
        self.addCleanup(run, "umount", "-l", self.directory)
        run("mount", "-o", "remount,bind,ro", self.directory)
        run("mount", "-t", "tarnfs", "-o", "ro", self.image, self.mountpoint)
        result = run("mount", "-o", "remount,rw", self.mountpoint, expect=None)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("cannot be opened for writing", result.stderr)
        self.assert_errno(errno.EROFS, (self.mountpoint / "new").touch)
        run("umount", self.mountpoint)

    def test_remount_read_write_of_what_others_read(self):
        other = self.mount(self.image, name="other", options="ro")
        run(program("tarnfs"), "-o", "ro", self.image, self.mountpoint)
        result = run("mount", "-o", "remount,rw", self.mountpoint, expect=None)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("in use by another process", result.stderr)
        other.unmount()
        run("mount", "-o", "remount,rw", self.mountpoint)
        (self.mountpoint / "new").touch()
        run("umount", self.mountpoint)
        self.assert_clean(self.image)

    def test_what_is_read_only_keeps_its_access_times(self):
        def read(path):
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                return file.read()

        run("mount", "-t", "tarnfs", self.image, self.mountpoint)
        path = self.mountpoint / "file"
        path.write_text("content")
        os.utime(path, (1000, 2000))
        for options in ("remount,ro", "remount,rw,noatime"):
            run("mount", "-o", options, self.mountpoint)
            self.assertEqual(read(path), b"content")
            run("umount", self.mountpoint)
            run("mount", "-t", "tarnfs", "-o", "ro", self.image, self.mountpoint)
            self.assertEqual(read(path), b"content")
            self.assertEqual(path.stat().st_atime, 1000)
            run("mount", "-o", "remount,rw", self.mountpoint)
        self.assertEqual(read(path), b"content")
        run("umount", self.mountpoint)
        run("mount", "-t", "tarnfs", self.image, self.mountpoint)
        self.assertGreater(path.stat().st_atime, 1000)
        run("umount", self.mountpoint)

    def test_a_second_place(self):
        second = self.make_directory("second")
        run("mount", "-t", "tarnfs", self.image, self.mountpoint)
        run("mount", "-t", "tarnfs", "-o", "ro", self.image, second)
        (self.mountpoint / "file").write_text("content")
        self.assertEqual((second / "file").read_text(), "content")
        self.assert_errno(errno.EROFS, (second / "other").touch)
        result = run("mount", "-t", "tarnfs", self.image, self.mountpoint, expect=None)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("already", result.stderr)
        run("umount", self.mountpoint)
        self.assertNotEqual(daemons_of(self.image), [], "the other place needs it")
        self.assertEqual((second / "file").read_text(), "content")
        run("umount", second)
        self.assertEqual(daemons_of(self.image), [])
        self.assert_clean(self.image)

    def test_errors_pass_through(self):
        self.image.write_bytes(bytes(8 << 20))
        result = run("mount", "-t", "tarnfs", self.image, self.mountpoint, expect=None)
        self.assertNotEqual(result.returncode, 0)
        self.assert_one_line_error(result, self.image, "no tarnfs volume")


class MountTime(TarnTest):
    def measure(self, image):
        mountpoint = self.make_directory("timed")
        seconds = []
        for _ in range(ROUNDS):
            start = time.monotonic()
            subprocess.run([program("tarnfs"), image, mountpoint], check=True, timeout=60)
            os.listdir(mountpoint)
            seconds.append(time.monotonic() - start)
            run("umount", "-i", mountpoint)
            poll(lambda: not daemons_of(image), "the daemon to end")
        print(f"{image.name}: mounted in {', '.join(f'{value:.3f}' for value in seconds)} s", flush=True)
        self.assertLess(statistics.median(seconds), MOUNT_SECONDS_MAX)

    def test_an_image_of_one_tebibyte(self):
        image = self.make_volume("tebibyte.tarnfs", "1T")
        self.assertEqual(image.stat().st_size, 1 << 40)
        self.assertLess(image.stat().st_blocks * 512, (64 << 20) + (8 << 20))  # the journal, and little else
        self.measure(image)
        self.assert_clean(image)

    def test_a_volume_with_many_files(self):
        image = self.make_volume("many.tarnfs", "4G")
        primary = self.mount(image)
        for number in range(FILES):
            if number % 10_000 == 0:
                directory = os.open(self.new_directory(primary.mountpoint, number), os.O_RDONLY)
            os.close(os.open(f"file-{number}", os.O_CREAT | os.O_WRONLY, dir_fd=directory))
            if number % 10_000 == 9_999:
                os.close(directory)
        primary.unmount()
        self.measure(image)
        self.assert_clean(image)

    def new_directory(self, root, number):
        path = root / f"directory-{number}"
        path.mkdir()
        return path


if __name__ == "__main__":
    harness.main()
