#!/usr/bin/env python3
"""Space that is given back to the storage below."""

import errno
import fcntl
import json
import os
import struct

import harness
from harness import TarnTest, run, tarn

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


if __name__ == "__main__":
    harness.main()
