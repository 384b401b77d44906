#!/usr/bin/env python3
"""Adds up what ctest wrote in JUnit form, and prints it as the closing line of a test run.

usage: sum_results.py DIRECTORY

DIRECTORY holds a .xml of each ctest run, and `failed_builds` with a line for each build that failed. The exit code is 1
when something failed or nothing passed.
"""

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def count(directory):
    passed, failed, skipped = [], [], []
    for path in sorted(directory.glob("*.xml")):
        for case in ElementTree.parse(path).getroot().iter("testcase"):
            name = f"{path.name.split('.')[0]}: {case.get('name')}"
            where = {"run": passed, "fail": failed}.get(case.get("status"), skipped)
            where.append(name)
    builds = directory / "failed_builds"
    if builds.exists():
        failed += builds.read_text().splitlines()
    return passed, failed, skipped


def main(directory):
    passed, failed, skipped = count(directory)
    for name in skipped:
        print(f"skipped: {name}")
    for name in failed:
        print(f"FAILED: {name}")
    print(f"{len(passed)} passed, {len(failed)} failed, {len(skipped)} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
