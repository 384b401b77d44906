#!/usr/bin/env python3
"""Fails on C++ that clang-format would change.

usage: formatting.py ROOT
"""

import subprocess
import sys
from pathlib import Path

import tree


def check(root):
    sources = tree.sources_of(root, tree.SOURCE_FOLDERS + ("tests",))
    findings = []
    for path in sources:
        result = subprocess.run(
            ["clang-format", "--dry-run", "-Werror", "--style=file", str(path)],
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            line = (result.stderr.splitlines() or ["clang-format failed"])[0]
            findings.append(f"{line}; run clang-format -i {path}")
    return findings, len(sources)


if __name__ == "__main__":
    sys.exit(tree.finish(*check(Path(sys.argv[1]))))
