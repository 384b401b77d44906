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

SVG = "{http://www.w3.org/2000/svg}"


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

    def test_what_a_unit_says_of_better(self):
        for unit in ("s", "x", "us", "ms", "MiB", "%"):
            self.assertEqual(figures.ratios(rounds(2, unit=unit), rounds(6, unit=unit)), [3], unit)
        for unit in ("ops/s", "tx/s", "MB/s", "ratio"):
            self.assertEqual(figures.ratios(rounds(6, unit=unit), rounds(2, unit=unit)), [3], unit)

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


def cost(value):
    return {0: {"value": value, "unit": "us"}}


COSTS = {
    "one_directory_create_at_1000000": {"tarnfs": cost(9), "ext4": cost(4)},
    "one_directory_create_at_10000": {"tarnfs": cost(8), "ext4": cost(3), "btrfs": {}},
    "many_directories_open_close_at_10000": {"tarnfs": cost(7)},
    "one_directory_memory_max": {"tarnfs": {0: {"value": 685, "unit": "MiB"}}},
    "idle_cpu_percent": {"tarnfs": {0: {"value": 0.0, "unit": "%"}}},
    "threads_8_to_2": {"tarnfs": {0: {"value": 1.25, "unit": "ratio"}}},
    "one_directory_create_last_to_first": {"tarnfs": {0: {"value": 0.5, "unit": "ratio"}}},
}


class Scale(unittest.TestCase):
    def setUp(self):
        self.phases = figures.summarize({"scale": COSTS}, RECORD["peers"])["scale"]

    def test_curves_are_in_the_order_of_the_numbers_of_files(self):
        self.assertEqual(
            figures.cost_curves(self.phases),
            {
                ("one_directory", "create"): {"tarnfs": [(10000, 8), (1000000, 9)], "ext4": [(10000, 3), (1000000, 4)]},
                ("many_directories", "open_close"): {"tarnfs": [(10000, 7)]},
            },
        )
        self.assertEqual(list(figures.without_curves(self.phases)), list(COSTS)[3:])

    def test_names_of_phases_are_found_again(self):
        for shape in figures.SHAPES:
            for operation in figures.COSTS:
                phases = {figures.cost_phase(shape, operation, 20): {"medians": {"tarnfs": 1}}}
                self.assertEqual(figures.cost_curves(phases), {(shape, operation): {"tarnfs": [(20, 1)]}})

    def test_goals_of_figures_of_its_own(self):
        met = {phase: (goal, met) for _, phase, _, goal, _, met in figures.judge({"scale": self.phases})}
        self.assertEqual(
            met,
            {
                "one_directory_memory_max": ("at most 684", False),
                "idle_cpu_percent": ("at most 0.1", True),
                "one_directory_create_last_to_first": ("at least 0.9", False),
                "threads_8_to_2": ("at least 1", True),
            },
        )

    def test_the_report_has_bars_and_lines(self):
        with tempfile.TemporaryDirectory() as directory:
            report.write({**RECORD, "results": {"scale": COSTS}}, Path(directory))
            names = sorted(path.name for path in Path(directory).iterdir())
            self.assertEqual(names, ["results.json", "results.md", "scale.svg", "scale_lines.svg"])
            text = (Path(directory) / "results.md").read_text()
            bars = (Path(directory) / "scale.svg").read_text()
        self.assertIn("![scale_lines](scale_lines.svg)", text)
        self.assertIn("| one_directory_create_at_10000 | us | 8.00 | 3.00 |", text)
        self.assertIn("threads_8_to_2", bars)
        self.assertNotIn("create_at", bars)


class Lines(unittest.TestCase):
    def test_ticks_are_round_and_reach_the_largest(self):
        self.assertEqual(plots.ticks(9.4), [0, 2, 4, 6, 8, 10])
        self.assertEqual(plots.ticks(100), [0, 20, 40, 60, 80, 100])
        self.assertEqual(plots.ticks(101), [0, 50, 100, 150])
        self.assertEqual(plots.ticks(0)[-1], 1)
        for most in (0.003, 0.7, 1, 12.5, 33, 4999, 1e7):
            found = plots.ticks(most)
            self.assertLess(found[-2], most)
            self.assertGreaterEqual(found[-1], most * (1 - 1e-9))
            self.assertLessEqual(len(found), plots.TICKS_MAX + 1)

    def test_counts(self):
        texts = [plots.count_text(count) for count in (400, 10_000, 2500, 1_000_000)]
        self.assertEqual(texts, ["400", "10k", "2.5k", "1M"])

    def drawn(self, panels):
        root = xml.fromstring(plots.lines("a < b", panels, ["tarnfs", "ext4"], "files", "µs"))
        texts = [line.get("points").replace(",", " ") for line in root.iter(f"{SVG}polyline")]
        return [[float(number) for number in text.split()] for text in texts]

    def test_x_is_logarithmic_and_y_begins_at_0(self):
        points = [(10_000, 0), (100_000, 5), (1_000_000, 10)]
        ((x1, y1, x2, y2, x3, y3),) = self.drawn({"create": {"tarnfs": points}})
        self.assertAlmostEqual(x2 - x1, x3 - x2, delta=0.2)
        self.assertAlmostEqual(y1 - y2, y2 - y3, delta=0.2)
        self.assertGreater(y1, y3)
        self.assertGreater(x3, x1)

    def test_a_line_for_each_peer_that_a_panel_has(self):
        panels = {"create": {"tarnfs": [(10, 1)], "ext4": [(10, 2)]}, "stat": {"ext4": [(10, 2), (20, 3)]}, "none": {}}
        self.assertEqual([len(points) for points in self.drawn(panels)], [2, 2, 4])


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

    def test_goals_of_a_mirror(self):
        def rounds(unit, *values):
            return {number: {"value": value, "unit": unit} for number, value in enumerate(values)}

        results = {
            "metadata": {"rename": {"tarnfs": rounds("/s", 100, 100), "tarnfs-mirror": rounds("/s", 90, 80)}},
            "tree": {"untar": {"tarnfs": rounds("s", 2), "tarnfs-mirror": rounds("s", 4)}},
            "publish": {"published_to_durable": {"tarnfs-mirror": rounds("x", 1.2, 1.5, 1.1)}},
        }
        judged = figures.judge(figures.summarize(results, ["tarnfs", "tarnfs-mirror"]))
        met = {(phase, against): (round(figure, 2), met) for _, phase, against, _, figure, met in judged}
        self.assertEqual(
            met,
            {
                ("rename", "tarnfs-mirror / tarnfs"): (0.85, True),
                ("untar", "tarnfs-mirror / tarnfs"): (0.5, False),
                ("published_to_durable", "tarnfs-mirror"): (1.2, True),
            },
        )

    def test_every_goal_is_in_a_suite_that_there_is(self):
        alone = (*figures.GOALS, *figures.LIMITS, *figures.LEASTS)
        for suite, *_ in (*alone, *figures.MIRROR_GOALS, *figures.MIRROR_LIMITS):
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
