#!/usr/bin/env python3
"""Fails when a program has no man page or no completion, or when a man page does not render without a warning.

usage: man_pages.py ROOT
"""

import os
import subprocess
import sys
from pathlib import Path

import tree

PAGES = ("tarnfs.8", "tarn.1", "mkfs.tarnfs.8", "fsck.tarnfs.8", "tarn-mirrord.8", "mount.tarnfs.8")
COMPLETED = ("tarnfs", "tarn", "mkfs.tarnfs", "fsck.tarnfs", "tarn-mirrord")


def check_page(path):
    if not path.is_file():
        return [f"man/{path.name} is missing"]
    command = ["man", "--warnings=w", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(path)]
    environment = dict(os.environ, LC_ALL="C.UTF-8", MANROFFSEQ="", MANWIDTH="80")
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    findings = [f"man/{path.name}: {line}" for line in result.stderr.splitlines()]
    if result.returncode != 0 and not findings:
        findings.append(f"man/{path.name}: man failed with exit code {result.returncode}")
    return findings


def check(root):
    findings = []
    for name in PAGES:
        findings += check_page(root / "man" / name)
    completion = root / "packaging" / "completion" / "tarn"
    result = subprocess.run(["bash", "-n", str(completion)], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        findings.append(f"packaging/completion/tarn: {result.stderr.strip()}")
    else:
        words = completion.read_text().split()
        findings += [f"packaging/completion/tarn does not complete {name}" for name in COMPLETED if name not in words]
    return findings, len(PAGES) + 1


if __name__ == "__main__":
    sys.exit(tree.finish(*check(Path(sys.argv[1]))))
