#!/usr/bin/env python3
"""Space: what fallocate keeps, what statfs says, what is given back to the storage below, and volumes that grow."""

import errno
import fcntl
import json
import mmap
import os
import struct
import subprocess
import time
from pathlib import Path

import harness
from harness import TarnTest, free_port, poll, program, run, tarn

MIB = 1 << 20
FITRIM = 0xC0185879
FILL_BYTES = 256 * MIB if harness.FULL else 64 * MIB


def used_bytes(path):
    return os.stat(path).st_blocks * 512


def trim(directory, start=0, length=(1 << 64) - 1, shortest=0, user=0):
    """FITRIM, as fstrim(8) asks for it; returns how many bytes it were."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.setresuid(-1, user, -1)
        answer = fcntl.ioctl(descriptor, FITRIM, struct.pack("=QQQ", start, length, shortest))
        return struct.unpack("=QQQ", answer)[1]
    finally:
        os.setresuid(-1, 0, -1)
        os.close(descriptor)


def fill(path, how=os.O_APPEND | os.O_SYNC):
    """Writes until there is no space for one block."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | how)
    try:
        with mmap.mmap(-1, MIB) as pages:  # aligned, as O_DIRECT wants it
            for size in (MIB, 64 << 10, 4096):
                try:
                    while True:
                        os.write(descriptor, memoryview(pages)[:size])
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
    finally:
        os.close(descriptor)


class Accepted(TarnTest):
    def test_what_write_has_accepted_is_written_though_others_have_filled_the_volume(self):
        image = self.make_volume(size="256M")
        volume = self.mount(image)
        path = volume.mountpoint / "file"
        content = self.random.randbytes(2 * MIB)
        with open(path, "wb", buffering=0) as file:
            fill(volume.mountpoint / "fill", os.O_DIRECT)
            self.assertEqual(file.write(content), len(content))  # the kernel asks nobody
            os.fsync(file.fileno())
            self.assert_errno(errno.ENOSPC, file.write, b"more")
        self.assertEqual(path.read_bytes(), content)
        volume.unmount()
        self.assert_clean(image)
        volume = self.mount(image)
        self.assertEqual((volume.mountpoint / "file").read_bytes(), content)
        volume.unmount()


class Reserve(TarnTest):
    def write_in_pieces(self, path, first, end, step):
        """The odd pieces first, as xfstests generic/274 does, then those between them."""
        content = self.random.randbytes(step)
        for start in (first + step, first):
            for offset in range(start, end, 2 * step):
                with open(path, "r+b") as file:
                    file.seek(offset)
                    file.write(content)
                    if self.random.random() < 0.1:
                        os.fsync(file.fileno())
        with open(path, "r+b") as file:
            os.fsync(file.fileno())
            for offset in range(first, end, step):
                file.seek(offset)
                self.assertEqual(file.read(step), content, f"at {offset}")

    def test_what_was_preallocated_can_be_written_on_a_full_volume(self):
        image = self.make_volume(size="48M")
        volume = self.mount(image)
        file = volume.mountpoint / "file"
        file.write_bytes(b"x" * 65536)
        run("fallocate", "--keep-size", "--offset", "65536", "--length", str(4 * MIB), file)
        self.assertEqual(file.stat().st_size, 65536)
        blocks = file.stat().st_blocks
        self.assertGreaterEqual(blocks * 512, 4 * MIB)
        fill(volume.mountpoint / "fill")
        self.write_in_pieces(file, 65536, 2 * MIB + 65536, 65536)
        self.assertEqual(file.stat().st_blocks, blocks)
        volume.unmount()
        self.assert_clean(image)
        volume = self.mount(image)
        fill(volume.mountpoint / "fill")
        self.write_in_pieces(file, 2 * MIB + 65536, 4 * MIB + 65536, 65536)
        self.assertEqual(file.stat().st_blocks, blocks)
        volume.unmount()
        self.assert_clean(image)

    def test_a_reserve_that_was_fsynced_is_there_after_a_crash(self):
        image = self.make_volume(size="48M")
        volume = self.mount(image, options="cp_interval=3600")
        file = volume.mountpoint / "file"
        with open(file, "wb") as opened:
            os.posix_fallocate(opened.fileno(), 0, 4 * MIB)
            os.fsync(opened.fileno())
        volume.kill()
        volume = self.mount(image)
        self.assertEqual(file.stat().st_size, 4 * MIB)
        fill(volume.mountpoint / "fill")
        self.write_in_pieces(file, 0, 4 * MIB, 65536)
        volume.unmount()
        self.assert_clean(image)

    def test_the_mirror_has_the_reserve(self):
        port = harness.free_port()
        mirror = self.start_mirror(port)
        image = self.make_volume(size="48M")
        volume = self.mount(image, mirror=port)
        with open(volume.mountpoint / "file", "wb") as opened:
            os.posix_fallocate(opened.fileno(), 0, 4 * MIB)
            opened.write(self.random.randbytes(1 * MIB))
        tarn("cp", "--mirror", volume.mountpoint)
        self.assertEqual((mirror.mountpoint / "file").read_bytes(), (volume.mountpoint / "file").read_bytes())
        blocks = (volume.mountpoint / "file").stat().st_blocks
        self.assertEqual((mirror.mountpoint / "file").stat().st_blocks, blocks)
        volume.unmount()
        mirror.terminate()
        self.assert_clean(image)
        mirror_image = self.directory / "mirror.tarnfs"
        self.assert_clean(mirror_image)
        # What a mirror's image has, its owner can go on with.
        volume = self.mount(mirror_image, name="promoted")
        fill(volume.mountpoint / "fill")
        self.write_in_pieces(volume.mountpoint / "file", 1 * MIB, 4 * MIB, 65536)
        self.assertEqual((volume.mountpoint / "file").stat().st_blocks, blocks)
        volume.unmount()
        self.assert_clean(mirror_image)

    def test_statfs_counts_what_was_just_deleted_or_kept(self):
        volume = self.mount(self.make_volume(size="256M"), options="cp_interval=3600")

        def available():
            status = os.statvfs(volume.mountpoint)
            return status.f_bavail * status.f_frsize

        before = available()
        file = volume.mountpoint / "file"
        with open(file, "wb") as opened:
            os.posix_fallocate(opened.fileno(), 0, 64 * MIB)
        self.assertLess(available(), before - 63 * MIB)
        with open(file, "r+b") as opened:
            opened.write(self.random.randbytes(32 * MIB))
            os.fsync(opened.fileno())
        tarn("cp", volume.mountpoint)
        self.assertLess(available(), before - 63 * MIB)
        os.truncate(file, 8 * MIB)
        self.assertGreater(available(), before - 12 * MIB)
        os.unlink(file)
        # What the kernel forgets is told a moment after the unlink.
        harness.poll(lambda: available() > before - 2 * MIB, "the deleted file counts as free")


class Trim(TarnTest):
    def test_storage_of_deleted_files_is_given_back(self):
        image = self.make_volume(size="1G")
        volume = self.mount(image)
        kept = self.random.randbytes(4 * MIB)
        (volume.mountpoint / "kept").write_bytes(kept)
        (volume.mountpoint / "gone").write_bytes(self.random.randbytes(FILL_BYTES))
        tarn("cp", volume.mountpoint)
        full = used_bytes(image)
        os.unlink(volume.mountpoint / "gone")
        # Deleted with the first, free with the second.
        tarn("cp", volume.mountpoint)
        (volume.mountpoint / "another").touch()
        tarn("cp", volume.mountpoint)
        run("fstrim", "-v", volume.mountpoint)
        self.assertLess(used_bytes(image), full - FILL_BYTES * 9 // 10)
        self.assertEqual((volume.mountpoint / "kept").read_bytes(), kept)

        (volume.mountpoint / "again").write_bytes(kept)
        answer = json.loads(tarn("trim", volume.mountpoint).stdout)
        self.assertGreater(answer["trimmed_bytes"], 512 * MIB)
        volume.unmount()
        self.assert_clean(image)
        volume = self.mount(image)
        self.assertEqual((volume.mountpoint / "kept").read_bytes(), kept)
        self.assertEqual((volume.mountpoint / "again").read_bytes(), kept)

    def test_ranges_and_who_may(self):
        image = self.make_volume(size="1G")
        volume = self.mount(image)
        self.assertEqual(trim(volume.mountpoint, 512 * MIB, 10 * MIB), 10 * MIB)
        self.assertEqual(trim(volume.mountpoint, 512 * MIB, 10 * MIB, 11 * MIB), 0)
        self.assert_errno(errno.EINVAL, trim, volume.mountpoint, 1 << 30)
        self.assert_errno(errno.EINVAL, trim, volume.mountpoint, 0, 100)
        self.assert_errno(errno.EPERM, trim, volume.mountpoint, user=4711)
        volume.unmount()
        volume = self.mount(image, options="ro")
        self.assert_errno(errno.EROFS, trim, volume.mountpoint)
        self.assert_one_line_error(tarn("trim", volume.mountpoint, expect=1), "read-only")


class Resize(TarnTest):
    def fill(self, directory, name):
        """Writes until there is no space; returns what the file has."""
        written = []
        with open(directory / name, "wb", buffering=0) as file:
            try:
                while True:
                    block = self.random.randbytes(MIB)
                    count = file.write(block)
                    os.fsync(file.fileno())
                    written.append(block[:count])
            except OSError as error:
                self.assertEqual(error.errno, errno.ENOSPC)
        os.truncate(directory / name, sum(map(len, written)))
        return b"".join(written)

    def resize(self, target, *arguments, **options):
        result = tarn("resize", *arguments, target, **options)
        return json.loads(result.stdout)["size_bytes"]

    def test_a_full_volume_grows_while_it_is_mounted(self):
        image = self.make_volume(size="32M")
        volume = self.mount(image)
        first = self.fill(volume.mountpoint, "first")
        free = os.statvfs(volume.mountpoint).f_bavail
        self.assertEqual(self.resize(volume.mountpoint, "--size", "100M"), 100 * MIB)
        self.assertGreater(os.statvfs(volume.mountpoint).f_bavail, free + 16000)
        self.assertEqual(volume.status()["size_bytes"], 100 * MIB)
        self.assertEqual(image.stat().st_size, 100 * MIB)
        second = self.fill(volume.mountpoint, "second")
        self.assertGreater(len(second), 55 * MIB)
        volume.unmount()
        self.assert_clean(image)
        volume = self.mount(image)
        self.assertEqual((volume.mountpoint / "first").read_bytes(), first)
        self.assertEqual((volume.mountpoint / "second").read_bytes(), second)

    def test_a_kill_while_it_grows(self):
        image = self.make_volume(size="32M")
        for size in ("64M", "96M", "128M"):
            volume = self.mount(image)
            (volume.mountpoint / f"file-{size}").write_text(size)
            tarn("cp", volume.mountpoint)
            self.resize(volume.mountpoint, "--size", size)
            volume.kill()
        self.assert_clean(image)
        volume = self.mount(image)
        self.assertEqual(volume.status()["size_bytes"], 128 * MIB)
        self.assertEqual((volume.mountpoint / "file-128M").read_text(), "128M")

    def test_a_kill_at_any_moment_of_it(self):
        image = self.make_volume(size="32M")
        kept = self.random.randbytes(MIB)
        size = 32 * MIB
        for _ in range(40 if harness.FULL else 5):
            volume = self.mount(image)
            self.assertEqual(volume.status()["size_bytes"], size)
            (volume.mountpoint / "kept").write_bytes(kept)
            tarn("cp", volume.mountpoint)
            larger = size + 4 * MIB
            started = time.monotonic()
            resizing = subprocess.Popen(
                [program("tarn"), "resize", "--size", str(larger), volume.mountpoint],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            end = started + self.random.uniform(0, 0.03)
            poll(lambda end=end: time.monotonic() > end, "a moment of it")
            volume.kill()
            answered = resizing.communicate()[0]
            self.assert_clean(image)
            volume = self.mount(image)
            found = volume.status()["size_bytes"]
            self.assertIn(found, (larger,) if answered else (size, larger))
            self.assertEqual((volume.mountpoint / "kept").read_bytes(), kept)
            volume.unmount()
            size = found

    def test_shared_blocks_before_and_after(self):
        image = self.make_volume(size="64M")
        volume = self.mount(image)
        content = self.random.randbytes(16 * MIB)

        def copy(name, new_name):
            with open(volume.mountpoint / name, "rb") as source, open(volume.mountpoint / new_name, "wb") as target:
                self.assertEqual(os.copy_file_range(source.fileno(), target.fileno(), len(content)), len(content))

        (volume.mountpoint / "first").write_bytes(content)
        copy("first", "copy")
        self.resize(volume.mountpoint, "--size", "256M")
        (volume.mountpoint / "second").write_bytes(content)
        tarn("cp", volume.mountpoint)
        copy("second", "another copy")
        used = volume.status()["used_bytes"]
        self.assertLess(used, 40 * MIB)
        for name in ("first", "second"):
            (volume.mountpoint / name).unlink()
        self.fill(volume.mountpoint, "filler")
        volume.unmount()
        self.assert_clean(image)
        volume = self.mount(image)
        for name in ("copy", "another copy"):
            self.assertEqual((volume.mountpoint / name).read_bytes(), content)
            (volume.mountpoint / name).unlink()  # on a full volume
        volume.unmount()
        self.assert_clean(image)

    def test_a_block_device_that_has_become_larger(self):
        image = self.make_volume(size="32M")
        device = self.loop_device(image)
        volume = self.mount(device)
        (volume.mountpoint / "file").write_text("kept")
        refused = tarn("resize", "--size", "64M", volume.mountpoint, expect=1)
        self.assert_one_line_error(refused, device, 32 * MIB, "make it larger")
        self.assertEqual(self.resize(volume.mountpoint), 32 * MIB)
        os.truncate(image, 64 * MIB)
        run("losetup", "--set-capacity", device)
        self.assertEqual(self.resize(volume.mountpoint), 64 * MIB)
        (volume.mountpoint / "more").write_bytes(self.random.randbytes(40 * MIB))
        volume.unmount()
        self.assert_clean(device)
        os.truncate(image, 96 * MIB)
        run("losetup", "--set-capacity", device)
        self.assertEqual(self.resize(device), 96 * MIB)
        self.assert_clean(device)
        volume = self.mount(device)
        self.assertEqual((volume.mountpoint / "file").read_text(), "kept")
        self.assertEqual(volume.status()["size_bytes"], 96 * MIB)
        volume.unmount()

    def test_a_new_volume_gives_back_what_the_old_content_took(self):
        for kind in ("file", "device"):
            with self.subTest(kind=kind):
                image = self.directory / f"{kind}.tarnfs"
                image.write_bytes(self.random.randbytes(64 * MIB))
                place = self.loop_device(image) if kind == "device" else image
                run(program("mkfs.tarnfs"), "-K", place)
                self.assertGreater(image.stat().st_blocks * 512, 60 * MIB)
                run(program("mkfs.tarnfs"), "-f", place)
                self.assertLess(image.stat().st_blocks * 512, 8 * MIB)
                self.assertEqual(image.stat().st_size, 64 * MIB)
                self.assert_clean(place)

    def test_a_file_system_below_that_is_full(self):
        disk = self.make_directory("disk")
        run("mount", "-t", "tmpfs", "-o", "size=24M", "tmpfs", disk)
        image = disk / "volume.tarnfs"
        run(program("mkfs.tarnfs"), "-s", "32M", "-J", "1M", image)
        volume = self.mount(image)
        kept = self.random.randbytes(4 * MIB)
        (volume.mountpoint / "kept").write_bytes(kept)
        tarn("cp", volume.mountpoint)
        with open(disk / "filler", "wb", buffering=0) as filler:
            with self.assertRaises(OSError):
                while True:
                    filler.write(bytes(4096))
        refused = tarn("resize", "--size", "64M", volume.mountpoint, expect=1)
        self.assert_one_line_error(refused, "storage below", "No space left on device")
        self.assertEqual(volume.status()["size_bytes"], 32 * MIB)
        (disk / "filler").unlink()
        self.assertEqual(self.resize(volume.mountpoint, "--size", "64M"), 64 * MIB)
        self.assertEqual((volume.mountpoint / "kept").read_bytes(), kept)
        volume.unmount()
        self.assert_clean(image)

    def test_an_image_that_may_not_become_so_long(self):
        image = self.make_volume(size="32M")
        volume = self.mount(image)
        run("prlimit", "--pid", volume.process.pid, f"--fsize={64 * MIB}")
        refused = tarn("resize", "--size", "128M", volume.mountpoint, expect=1)
        self.assert_one_line_error(refused, "storage below", "File too large")
        self.assertEqual(self.resize(volume.mountpoint, "--size", "64M"), 64 * MIB)
        volume.unmount()
        self.assert_clean(image)

    def test_an_image_that_is_not_mounted_and_its_own_size(self):
        image = self.make_volume(size="32M")
        self.assertEqual(self.resize(image, "--size", "64M"), 64 * MIB)
        self.assert_clean(image)
        os.truncate(image, 80 * MIB)
        self.assertEqual(self.resize(image), 80 * MIB)
        self.assert_clean(image)
        volume = self.mount(image)
        os.truncate(image, 96 * MIB)
        self.assertEqual(self.resize(volume.mountpoint), 96 * MIB)
        volume.unmount()
        self.assert_clean(image)

    def test_what_is_refused(self):
        image = self.make_volume(size="32M")
        volume = self.mount(image)
        smaller = tarn("resize", "--size", "16M", volume.mountpoint, expect=1)
        self.assert_one_line_error(smaller, "smaller", "mkfs.tarnfs")
        self.assert_one_line_error(tarn("resize", "--size", "x", volume.mountpoint, expect=2), "x")
        self.assert_one_line_error(tarn("resize", "--size", "1G", "/nowhere", expect=1), "/nowhere")
        volume.unmount()
        run(program("mkfs.tarnfs"), "-f", "-s", "32M", image)
        volume = self.mount(image, options="ro")
        self.assert_one_line_error(tarn("resize", "--size", "64M", volume.mountpoint, expect=1), "read-only")

    def test_a_mirror_grows_with_its_primary(self):
        port = free_port()
        mirror = self.start_mirror(port)
        image = self.make_volume(size="32M")
        primary = self.mount(image, mirror=port)
        (primary.mountpoint / "before").write_bytes(self.random.randbytes(10 * MIB))
        tarn("cp", "--mirror", primary.mountpoint)
        with open(mirror.mountpoint / "before", "rb") as reader:
            self.resize(primary.mountpoint, "--size", "128M")
            (primary.mountpoint / "after").write_bytes(self.random.randbytes(80 * MIB))
            tarn("cp", "--mirror", primary.mountpoint)
            self.assertEqual(reader.read(), (primary.mountpoint / "before").read_bytes())
        self.assert_same_tree(primary.mountpoint, mirror.mountpoint)
        self.assertEqual(os.statvfs(mirror.mountpoint).f_blocks, os.statvfs(primary.mountpoint).f_blocks)
        self.assert_one_line_error(tarn("resize", "--size", "256M", mirror.mountpoint, expect=1), "primary")
        # And one that was away meanwhile.
        mirror.terminate()
        self.resize(primary.mountpoint, "--size", "256M")
        (primary.mountpoint / "away").write_bytes(self.random.randbytes(100 * MIB))
        tarn("cp", primary.mountpoint)
        mirror = self.start_mirror(port)
        tarn("cp", "--mirror", primary.mountpoint)
        self.assert_same_tree(primary.mountpoint, mirror.mountpoint)
        root = primary.status()["root"]
        poll(lambda: mirror.status()["root"] == root, "equal roots")
        primary.unmount()
        mirror.terminate()
        self.assert_clean(image)
        self.assert_clean(self.directory / "mirror.tarnfs")


if __name__ == "__main__":
    harness.main()
