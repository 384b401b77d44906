#!/usr/bin/env python3
"""copy_file_range(2) shares blocks: what a copy costs, and that either file can change, go, and be mirrored."""

import os
import time

import harness
from harness import FULL, TarnTest, free_port, run, tarn

MIB = 1 << 20
SIZE = (1024 if FULL else 64) * MIB
# Nodes, inodes and the share map of a copy, and of the free map what they change.
BLOCKS_OF_A_COPY_MAX = SIZE // 4096 // 100 + 64


class SharedCopy(TarnTest):
    def setUp(self):
        super().setUp()
        self.image = self.make_volume(size="4G" if FULL else "1G")

    def fill(self, path, size=SIZE):
        """A file whose pages all differ."""
        chunk = self.random.randbytes(MIB)
        with open(path, "wb") as file:
            for number in range(size // MIB):
                file.write(number.to_bytes(8, "little") + chunk[8:])

    def copy(self, source, target, offset=0):
        """All of the source to the offset in the target; returns the seconds and the number of calls."""
        calls = 0
        with open(source, "rb") as read, open(target, "rb+" if target.exists() else "xb") as write:
            size = os.fstat(read.fileno()).st_size
            done = 0
            begin = time.monotonic()
            while done < size:
                count = os.copy_file_range(read.fileno(), write.fileno(), size - done, done, offset + done)
                self.assertGreater(count, 0)
                done += count
                calls += 1
            return time.monotonic() - begin, calls

    def used_blocks(self, daemon):
        tarn("cp", daemon.mountpoint)
        return daemon.status()["used_bytes"] // 4096

    def assert_same(self, one, other):
        run("cmp", one, other)

    def test_a_copy_takes_no_data_blocks_and_either_file_can_change(self):
        daemon = self.mount(self.image)
        source = daemon.mountpoint / "source"
        copy = daemon.mountpoint / "copy"
        reference = self.directory / "reference"
        self.fill(source)
        run("cp", "--sparse=never", source, reference)
        before = self.used_blocks(daemon)
        free_before = os.statvfs(daemon.mountpoint).f_bfree
        seconds, calls = self.copy(source, copy)
        print(f"{SIZE >> 20} MiB in {seconds * 1000:.1f} ms and {calls} calls", flush=True)
        after = self.used_blocks(daemon)
        self.assertLess(after - before, BLOCKS_OF_A_COPY_MAX)
        self.assertLess(free_before - os.statvfs(daemon.mountpoint).f_bfree, BLOCKS_OF_A_COPY_MAX)
        self.assertEqual(copy.stat().st_size, SIZE)
        self.assert_same(copy, reference)
        # The source's first page and the copy's last one.
        with open(source, "rb+") as file:
            file.write(b"changed")
        with open(copy, "rb+") as file:
            file.seek(SIZE - 100)
            file.write(b"changed")
        self.assertLess(self.used_blocks(daemon) - after, 64)
        daemon.unmount()
        self.assert_clean(self.image)
        daemon = self.mount(self.image)
        with open(copy, "rb") as file, open(reference, "rb") as expected:
            self.assertEqual(file.read(MIB), expected.read(MIB))
        source.unlink()
        with open(copy, "rb+") as file:
            file.seek(SIZE - 100)
            self.assertEqual(file.read(7), b"changed")
            file.truncate(SIZE // 2)
        os.truncate(reference, SIZE // 2)
        self.assert_same(copy, reference)
        self.assertLess(self.used_blocks(daemon), before - SIZE // 2 // 4096 + BLOCKS_OF_A_COPY_MAX)
        copy.unlink()
        daemon.unmount()
        self.assert_clean(self.image)
        daemon = self.mount(self.image)
        self.assertLess(self.used_blocks(daemon), before - SIZE // 4096 + BLOCKS_OF_A_COPY_MAX)
        daemon.unmount()
        self.assert_clean(self.image)

    def test_a_copy_that_was_fsynced_survives_the_daemon(self):
        daemon = self.mount(self.image, options="cp_interval=3600")
        source = daemon.mountpoint / "source"
        copy = daemon.mountpoint / "copy"
        self.fill(source, 8 * MIB)
        content = source.read_bytes()
        self.copy(source, copy)
        with open(copy, "rb+") as file:
            os.fsync(file.fileno())
        os.truncate(source, 0)
        daemon.kill()
        daemon = self.mount(self.image)
        self.assertEqual(copy.read_bytes(), content)
        daemon.unmount()
        self.assert_clean(self.image)

    def test_copies_reach_the_mirror(self):
        port = free_port()
        mirror = self.start_mirror(port)
        daemon = self.mount(self.image, mirror=port)
        source = daemon.mountpoint / "source"
        self.fill(source, 16 * MIB)
        tarn("cp", "--mirror", daemon.mountpoint)
        for number in range(4):
            self.copy(source, daemon.mountpoint / f"copy{number}", offset=number * 4096)
        tarn("cp", "--mirror", daemon.mountpoint)
        self.assert_same_tree(daemon.mountpoint, mirror.mountpoint)
        source.write_bytes(b"changed")
        (daemon.mountpoint / "copy0").unlink()
        with open(daemon.mountpoint / "copy1", "rb+") as file:
            file.write(b"changed")
        self.fill(daemon.mountpoint / "other", 16 * MIB)
        tarn("cp", "--mirror", daemon.mountpoint)
        self.assert_same_tree(daemon.mountpoint, mirror.mountpoint)
        daemon.unmount()
        mirror.terminate()
        self.assert_clean(self.image)
        self.assert_clean(self.directory / "mirror.tarnfs")


if __name__ == "__main__":
    harness.main()
