"""What a run of xfstests found, as a table."""

import os
import platform
import re
import subprocess
import xml.etree.ElementTree as ElementTree
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple


class Results(NamedTuple):
    passed: dict  # name: seconds
    failed: dict  # name: what xfstests says
    not_run: dict  # name: why
    seconds: float


def exclusions(path):
    """{test: why FUSE itself cannot do it}. A line without a reason is an error."""
    found = {}
    for line in Path(path).read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        name, _, reason = line.partition(" ")
        if not re.fullmatch(r"generic/\d{3}", name) or len(reason.strip()) < 20:
            raise ValueError(f"{path}: {line!r} is not a test and the reason why FUSE cannot do it")
        found[name] = reason.strip()
    return found


def read_results(path):
    passed, failed, not_run, seconds = {}, {}, {}, 0.0
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name, took = case.get("name"), float(case.get("time") or 0)
        seconds += took
        failure, skipped = case.find("failure"), case.find("skipped")
        if failure is not None:
            # Without the place of its output.
            failed[name] = re.sub(r"\s*\(see [^)]*\)", "", failure.get("message") or "failed")
        elif skipped is not None:
            not_run[name] = skipped.get("message") or ""
        else:
            passed[name] = took
    return Results(passed, failed, not_run, seconds)


def first_line(*command, cwd=None):
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    return (result.stdout.strip().splitlines() or ["unknown"])[0]


def machine(programs, xfstests, fsck_calls):
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "kernel": platform.release(),
        "processors": os.cpu_count(),
        "tarnfs": first_line(str(programs / "tarnfs"), "--version"),
        "xfstests": first_line("git", "log", "-1", "--format=%h of %cs", cwd=xfstests),
        "fsck.tarnfs was called": f"{fsck_calls} times",
    }


def reason_group(reason):
    """Without names of files and numbers, so that the same reason is one line."""
    return re.sub(r"\s+", " ", re.sub(r"/\S+", "…", reason)).strip()


def describe(rounds, excluded, facts):
    """`rounds` are the results of one run or of several; a test has passed when it did in each."""
    lines = ["# xfstests on tarnfs", ""]
    lines += [f"- {key}: {value}" for key, value in facts.items()]
    lines += ["", "| run | passed | failed | not run | minutes |", "|---|---|---|---|---|"]
    for number, results in enumerate(rounds, 1):
        counts = (len(results.passed), len(results.failed), len(results.not_run), f"{results.seconds / 60:.0f}")
        lines.append(f"| {number} | {' | '.join(str(count) for count in counts)} |")
    failed = [(name, number, why) for number, each in enumerate(rounds, 1) for name, why in each.failed.items()]
    if failed:
        lines += ["", "## Failed", ""] + [f"- {name}, run {number}: {why}" for name, number, why in failed]
    lines += ["", "## Excluded", ""] + [f"- {name}: {why}" for name, why in excluded.items()]
    lines += ["", "## Not run", "", "| tests | why |", "|---|---|"]
    groups = Counter(reason_group(why) for why in rounds[-1].not_run.values())
    lines += [f"| {count} | {why} |" for why, count in groups.most_common()]
    passed = [name for name in rounds[-1].passed if all(name in results.passed for results in rounds)]
    lines += ["", f"## Passed, each time: {len(passed)}", "", ", ".join(passed), ""]
    return "\n".join(lines)
