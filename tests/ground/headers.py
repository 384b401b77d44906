#!/usr/bin/env python3
"""Fails when a header does not compile alone.

usage: headers.py ROOT COMPILER
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tree


def package_flags(*packages):
    known = subprocess.run(["pkg-config", "--cflags", *packages], capture_output=True, text=True, check=False)
    return known.stdout.split()


def check(root, compiler):
    headers = [p for p in tree.sources_of(root, tree.SOURCE_FOLDERS + ("tests",)) if p.suffix == ".h"]
    flags = ["-std=c++20", "-fsyntax-only", "-w", "-I", str(root), '-DTARNFS_VERSION="0"', *package_flags("fuse3")]

    def compile_alone(path):
        command = [compiler, *flags, "-x", "c++", str(root / path)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        first = next((line for line in result.stderr.splitlines() if "error" in line), "the compiler failed")
        return None if result.returncode == 0 else f"{path} does not compile alone: {first}"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [finding for finding in pool.map(compile_alone, headers) if finding], len(headers)


if __name__ == "__main__":
    sys.exit(tree.finish(*check(Path(sys.argv[1]), sys.argv[2])))
