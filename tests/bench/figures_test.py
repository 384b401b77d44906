#!/usr/bin/env python3
"""Tests of the medians, ratios and reports, with figures that are made up, and of the source tree."""

import hashlib
import tarfile
import tempfile
import unittest
import xml.etree.ElementTree as xml
import zlib
from pathlib import Path

import figures
import plots
import report
import suites
import tree_source


def rounds(*values, unit="ops/s"):
    return {i: {"value": value, "unit": unit} for i, value in enumerate(values) if value is not None}


class Medians(unittest.TestCase):
    def test_median_of_rounds(self):
        self.assertEqual(figures.median_value(rounds(5, 1, 3)), 3)
        self.assertEqual(figures.median_value(rounds(1, 2)), 1.5)
        self.assertIsNone(figures.median_value({}))
        self.assertIsNone(figures.median_value(rounds(1), "p50_us"))


class Ratios(unittest.TestCase):
    def test_ratios_are_of_one_round_each(self):
        # The machine was twice as slow in the second round: that changes no ratio.
        ratio = figures.ratio_summary(rounds(30, 15, 30), rounds(10, 5, 15))
        self.assertEqual(ratio, {"median": 3, "least": 2, "most": 3})

    def test_less_is_better(self):
        self.assertEqual(figures.ratios(rounds(2, unit="s"), rounds(6, unit="s")), [3])

    def test_shorter_is_faster_in_the_tree_suite(self):
        tarnfs, btrfs = rounds(2, 4, unit="s"), rounds(1, 2, unit="s")
        summary = figures.summarize({"tree": {"untar": {"tarnfs": tarnfs, "btrfs": btrfs}}}, ["tarnfs", "btrfs"])
        self.assertEqual(summary["tree"]["untar"]["ratios"]["btrfs"]["median"], 0.5)
        self.assertEqual([row[-1] for row in figures.judge(summary)], [False])

    def test_a_round_that_failed_has_no_ratio(self):
        self.assertEqual(figures.ratios(rounds(4, None, 8), rounds(2, 2, None)), [2])
        self.assertIsNone(figures.ratio_summary(rounds(4), {}))
        self.assertIsNone(figures.ratio_summary(rounds(4), rounds(0)))


class Shares(unittest.TestCase):
    def test_the_best_has_the_whole_bar(self):
        self.assertEqual(figures.shares_of_best({"a": 1, "b": 4}, "ops/s"), {"a": 0.25, "b": 1})
        self.assertEqual(figures.shares_of_best({"a": 1, "b": 4}, "s"), {"a": 1, "b": 0.25})
        self.assertEqual(figures.shares_of_best({"a": 0}, "ops/s"), {"a": 1})
        self.assertEqual(figures.shares_of_best({}, "s"), {})


class Trees(unittest.TestCase):
    FILES = 400

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.archive = Path(directory.name) / "tree.tar"
        self.count = tree_source.write_tar(self.archive, self.FILES)

    def test_the_same_bytes_everywhere(self):
        digest = hashlib.sha256(self.archive.read_bytes()).hexdigest()
        self.assertEqual(digest, "7fb50ea3a2f8656b956a6687072251db0ec942e1ffba99619e782a9d03dcdefc")

    def test_it_is_like_a_source_tree(self):
        with tarfile.open(self.archive) as archive:
            members = archive.getmembers()
        self.assertEqual(len(members), self.count)
        self.assertEqual(len({member.name for member in members}), self.count)
        sizes = [member.size for member in members if member.isfile()]
        self.assertEqual(len(sizes), self.FILES)
        self.assertGreater(sum(1 << 10 <= size <= 20 << 10 for size in sizes), self.FILES * 0.7)
        self.assertLessEqual(max(sizes), 500 << 10)
        self.assertEqual(sum(member.isdir() for member in members), self.FILES * 75 // 1000)
        self.assertEqual(sum(member.issym() for member in members), self.FILES // tree_source.SYMLINK_EVERY)

    def test_passthrough_peers_can_hold_it_and_its_copy_open(self):
        count = len(tree_source.entries(suites.Sizes().tree_files, tree_source.SEED))
        self.assertLess(count * 2, 19900)

    def test_its_text_compresses_and_lacks_the_word_that_grep_looks_for(self):
        content = self.archive.read_bytes()
        self.assertNotIn(tree_source.ABSENT_WORD.encode(), content)
        packed = len(zlib.compress(content, 1))
        self.assertTrue(0.25 < packed / len(content) < 0.6, packed / len(content))


RESULTS = {
    "fsync": {
        "overwrite_4k_fdatasync_1_job": {
            "tarnfs": {0: {"value": 300, "unit": "ops/s", "p50_us": 3, "p99_us": 5, "p999_us": 9}},
            "ext4": {0: {"value": 200, "unit": "ops/s", "p50_us": 4, "p99_us": 6, "p999_us": 8}},
            "btrfs": {0: {"value": 200, "unit": "ops/s"}},
        },
        "write_amplification": {"tarnfs": {0: {"value": 1.2, "unit": "x"}}},
    }
}
RECORD = {
    "machine": {"kernel": "6.1"},
    "command": "run",
    "rounds": 3,
    "peers": ["tarnfs", "ext4", "btrfs"],
    "places": {
        "fsync": {"directory": "/x", "file_system": "ext4", "loop_direct_io": True, "images_written_before": True}
    },
    "sizes": {"files": 1},
    "transports": {"fsync": {"tarnfs": ["io_uring"], "nullfs": ["/dev/fuse"], "ext4": ["in the kernel"]}},
    "skipped": {"xfs": {"fsync": "not installed: mkfs.xfs"}},
    "failed": [{"suite": "fsync", "round": 1, "peer": "btrfs", "reason": "no room"}],
    "load_averages": [0.5, 2.25],
    "results": RESULTS,
}


class Summaries(unittest.TestCase):
    def setUp(self):
        self.summary = figures.summarize(RESULTS, RECORD["peers"])

    def test_goals(self):
        met = {(phase, against): met for _, phase, against, _, _, met in figures.judge(self.summary)}
        self.assertEqual(
            met,
            {
                ("overwrite_4k_fdatasync_1_job", "tarnfs / ext4"): True,
                ("overwrite_4k_fdatasync_1_job", "tarnfs / btrfs"): False,
                ("write_amplification", "tarnfs"): False,
            },
        )

    def test_every_goal_is_in_a_suite_that_there_is(self):
        for suite, *_ in (*figures.GOALS, *figures.LIMITS):
            self.assertIn(suite, report.SUITE_TITLES)

    def test_every_suite_has_a_title(self):
        self.assertEqual(sorted(report.SUITE_TITLES), sorted(suites.RUN))

    def test_plot_is_well_formed(self):
        drawn = plots.bars("a < b", self.summary["fsync"], RECORD["peers"])
        self.assertTrue(xml.fromstring(drawn).tag.endswith("svg"))

    def test_report_names_what_is_missing_and_what_failed(self):
        with tempfile.TemporaryDirectory() as directory:
            report.write(RECORD, Path(directory))
            names = sorted(path.name for path in Path(directory).iterdir())
            self.assertEqual(names, ["fsync.svg", "results.json", "results.md"])
            text = (Path(directory) / "results.md").read_text()
        self.assertIn("skipped: xfs in fsync: not installed: mkfs.xfs", text)
        self.assertIn("btrfs in fsync, round 2: no room", text)
        self.assertIn("Transports: tarnfs io_uring, nullfs /dev/fuse, ext4 in the kernel.", text)
        self.assertIn("**tarnfs and nullfs had different transports", text)
        self.assertIn("| overwrite_4k_fdatasync_1_job | 1.50 (1.50–1.50) |", text)


if __name__ == "__main__":
    unittest.main(verbosity=2)
