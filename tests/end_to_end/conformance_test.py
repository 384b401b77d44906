#!/usr/bin/env python3
"""Each errno of each call, on a mounted volume: runs the program of tests/conformance.

TARNFS_CONFORMANCE_ON=ext4 (or another type that mkfs knows) runs it on a loop device instead, to see that what it
asks is what Linux's own file systems do.
"""

import os
import re

import harness
from harness import TarnTest, run

CHECKS_MIN = 16_000
OTHER_TYPE = os.environ.get("TARNFS_CONFORMANCE_ON", "")


class Conformance(TarnTest):
    def setUp(self):
        super().setUp()
        os.chmod(self.directory, 0o755)
        self.elsewhere = self.make_directory("elsewhere")
        run("mount", "-t", "tmpfs", "tmpfs", self.elsewhere)
        # On its own file system, so that the images are not limited by what is below.
        self.images = self.make_directory("images")
        run("mount", "-t", "tmpfs", "tmpfs", self.images)
        self.checks = 0

    def make_image(self, name, size):
        image = self.images / name
        if not OTHER_TYPE:
            return self.make_volume(image, size)
        run("truncate", "-s", size, image)
        run(f"mkfs.{OTHER_TYPE}", "-q", image)
        return image

    def open_image(self, image, access="rw"):
        """Mounts it and returns the mountpoint."""
        options = f"{access},dev,suid"
        if not OTHER_TYPE:
            return self.mount(image, options=f"{options},allow_other").mountpoint
        mountpoint = self.make_directory("mount")
        run("mount", "-t", OTHER_TYPE, "-o", f"loop,{options}", image, mountpoint)
        return mountpoint

    def close_image(self, image):
        if not OTHER_TYPE:
            self.daemons[-1].unmount()
            self.assert_clean(image)
            return
        run("umount", self.directory / "mount")

    def run_suite(self, suite, directory):
        words = [directory, self.elsewhere, f"--test-suite={suite}"]
        result = run(harness.program("conformance"), *words, expect=None)
        summary = re.search(r"^(\d+) checks$", result.stdout, re.MULTILINE)
        self.assertEqual(result.returncode, 0, f"suite {suite}:\n{result.stdout[-12000:]}{result.stderr[-2000:]}")
        self.assertIsNotNone(summary, result.stdout[-1000:])
        self.assertGreater(int(summary[1]), 0, f"suite {suite} checks nothing")
        self.checks += int(summary[1])
        print(f"suite {suite}: {summary[1]} checks", flush=True)

    def test_each_call(self):
        image = self.make_image("volume", "1G")
        root = self.open_image(image)
        os.chmod(root, 0o755)
        self.run_suite("read-write", root)
        self.run_suite("before read-only", root)
        self.close_image(image)
        root = self.open_image(image, "ro")
        self.run_suite("read-only", root)
        self.close_image(image)
        print(f"{self.checks} checks", flush=True)
        self.assertGreater(self.checks, CHECKS_MIN, "part of the test did not run")

    def test_full_volume(self):
        image = self.make_image("small", "4M")
        root = self.open_image(image)
        os.chmod(root, 0o755)
        self.run_suite("small", root)
        self.close_image(image)


if __name__ == "__main__":
    harness.main()
