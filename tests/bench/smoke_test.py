#!/usr/bin/env python3
"""Shows that the benchmark works from end to end: every suite at sizes whose figures mean nothing, on tarnfs alone, and
that nothing of it is left. Environment: TARNFS_BIN, the build directory."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import figures

RUN = Path(__file__).resolve().with_name("run")
SKIPPED = 77
PHASES = {
    "fsync": ("overwrite_4k_fdatasync_1_job", "create_write_4k_fsync_8_jobs", "sqlite_rollback", "sqlite_wal"),
    "metadata": ("create_empty", "stat_first", "readdir_names", "rename", "sqlite_rollback", "sqlite_wal"),
    "stream": ("write_fsync", "read_cold", "random_read_4k_cold_8_jobs", "random_write_4k_fsync_at_end"),
    "tree": ("untar", "untar_sync", "untar_unmount", "find_stat_cold", "grep_cold", "cp_a", "rm_r"),
    "scale": (
        *(figures.cost_phase(shape, operation, 400) for shape in figures.SHAPES for operation in figures.COSTS),
        "one_directory_create_last_to_first",
        "many_directories_memory_max",
        "threads_8_to_2",
    ),
    "mixed": (
        "alone_create_stat_unlink",
        "beside_busy",
        "six_threads",
        "stream_beside",
        "stream_beside_throughput",
    ),
}
# What may be 0 in so short a time.
MAYBE_NOTHING = {"scale": "idle_cpu_percent", "mixed": "cp_wait_p999_ms"}


class Smoke(unittest.TestCase):
    def test_all_suites(self):
        with tempfile.TemporaryDirectory(prefix="tarnfs-test-") as directory:
            images = Path(directory) / "images"
            images.mkdir()
            output = Path(directory) / "output"
            words = [RUN, "--tiny", "--rounds", "1", "--peers", "tarnfs,nullfs", "--on", images, "--output", output]
            result = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
            self.assertEqual(result.returncode, 0, result.stderr)
            record = json.loads((output / "results.json").read_text())
            results = record["results"]
            for suite, phases in PHASES.items():
                for phase in phases:
                    self.assertGreater(results[suite][phase]["tarnfs"]["0"]["value"], 0, phase)
                self.assertTrue((output / f"{suite}.svg").exists())
                self.assertIn(record["transports"][suite]["tarnfs"], (["io_uring"], ["/dev/fuse"]))
            for suite, phase in MAYBE_NOTHING.items():
                self.assertGreaterEqual(results[suite][phase]["tarnfs"]["0"]["value"], 0, phase)
            self.assertTrue((output / "scale_lines.svg").exists())
            self.assertNotIn("nullfs", results["mixed"]["cp_wait_p999_ms"])
            self.assertNotIn("nullfs", results["metadata"]["sqlite_wal"])
            self.assertIn("skipped: nullfs in fsync", (output / "results.md").read_text())
            self.assertEqual(list(images.iterdir()), [])
        self.assertNotIn(directory, Path("/proc/self/mountinfo").read_text())

    def test_a_mirror_publishes(self):
        with tempfile.TemporaryDirectory(prefix="tarnfs-test-") as directory:
            words = [RUN, "--tiny", "--rounds", "1", "--suite", "publish"]
            words += ["--peers", "tarnfs,tarnfs-mirror,tarnfs-mirror-keys"]
            words += ["--on", directory, "--output", Path(directory) / "output"]
            result = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn("skipped: tarnfs in publish: it has no mirror", result.stderr)
            record = json.loads((Path(directory) / "output" / "results.json").read_text())
            phases = record["results"]["publish"]
            for phase in ("durable", "published", "published_to_durable"):
                for peer in ("tarnfs-mirror", "tarnfs-mirror-keys"):
                    self.assertGreater(phases[phase][peer]["0"]["value"], 0, phase)

    def test_wrong_words_are_usage_errors(self):
        wrong = (
            (("--peers", "zfs"), "no such peer: zfs"),
            (("--scale-files", "150"), "the files of the scale suite are a multiple of 100"),
        )
        for words, message in wrong:
            result = subprocess.run([str(RUN), *words], capture_output=True, text=True, check=False)
            self.assertEqual(result.returncode, 2)
            self.assertIn(message, result.stderr)


if __name__ == "__main__":
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        print("skipped: mounting needs root and /dev/fuse")
        sys.exit(SKIPPED)
    unittest.main(verbosity=2)
