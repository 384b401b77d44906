#!/usr/bin/env python3
"""The table of a run of xfstests, and the list of what is excluded from it."""

import tempfile
import unittest
from pathlib import Path

import table

REPORT = """<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="xfstests" failures="1" skipped="2" tests="4">
  <testcase classname="xfstests.global" name="generic/001" time="4"></testcase>
  <testcase classname="xfstests.global" name="generic/002" time="1">
    <failure message="- output mismatch (see /a/002.out.bad)" />
  </testcase>
  <testcase classname="xfstests.global" name="generic/003" time="0"><skipped message="no /dev/a here" /></testcase>
  <testcase classname="xfstests.global" name="generic/004" time="0"><skipped message="no /dev/b here" /></testcase>
</testsuite>
"""


class TableTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.file = Path(directory.name, "file")

    def test_a_report_becomes_a_table(self):
        self.file.write_text(REPORT)
        results = table.read_results(self.file)
        self.assertEqual(list(results.passed), ["generic/001"])
        self.assertEqual(results.failed, {"generic/002": "- output mismatch"})
        text = table.describe([results], {"generic/009": "because"}, {"kernel": "1.0"})
        self.assertIn("- generic/009: because", text)
        self.assertIn("- kernel: 1.0", text)
        self.assertIn("| 1 | 1 | 1 | 2 | 0 |", text)
        self.assertIn("- generic/002, run 1: - output mismatch", text)
        self.assertIn("| 2 | no … here |", text)
        self.assertIn("## Passed, each time: 1\n\ngeneric/001\n", text)

    def test_what_failed_once_has_not_passed(self):
        self.file.write_text(REPORT)
        results = table.read_results(self.file)
        good = results._replace(passed=results.passed | {"generic/002": 1.0}, failed={})
        text = table.describe([good, results, good], {}, {})
        self.assertIn("| 3 | 2 | 0 | 2 | 0 |", text)
        self.assertIn("- generic/002, run 2: - output mismatch", text)
        self.assertIn("## Passed, each time: 1\n\ngeneric/001\n", text)

    def test_an_exclusion_needs_a_reason(self):
        self.file.write_text("# words\ngeneric/001 because it is really not possible\n")
        self.assertEqual(table.exclusions(self.file), {"generic/001": "because it is really not possible"})
        for line in ("generic/001", "generic/001 it fails", "xfs/001 because it is really not possible"):
            self.file.write_text(line + "\n")
            with self.assertRaises(ValueError):
                table.exclusions(self.file)

    def test_the_list_in_use(self):
        self.assertTrue(table.exclusions(Path(__file__).with_name("exclusions")))


if __name__ == "__main__":
    unittest.main()
