#!/usr/bin/env python3
"""Tests of the medians, ratios and reports, with figures that are made up."""

import tempfile
import unittest
import xml.etree.ElementTree as xml
from pathlib import Path

import figures
import plots
import report


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

    def test_a_round_that_failed_has_no_ratio(self):
        self.assertEqual(figures.ratios(rounds(4, None, 8), rounds(2, 2, None)), [2])
        self.assertIsNone(figures.ratio_summary(rounds(4), {}))
        self.assertIsNone(figures.ratio_summary(rounds(4), rounds(0)))


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
        self.assertIn("| overwrite_4k_fdatasync_1_job | 1.50 (1.50–1.50) |", text)


if __name__ == "__main__":
    unittest.main(verbosity=2)
