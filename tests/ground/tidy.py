#!/usr/bin/env python3
"""Runs clang-tidy over every source of the compilation database, both cores busy.

usage: tidy.py ROOT BUILD_DIRECTORY [NAME_REGEX]

A source that passed is not looked at again while nothing that it is made of has changed: what passed is remembered
by a hash of the tool, its settings, the command and the preprocessed text, under $XDG_CACHE_HOME/tarnfs-tidy.
"""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tree

EXTRA = ["--quiet", "--extra-arg=-Wno-unknown-warning-option", "--extra-arg=-Qunused-arguments"]
# What only changes the code that is made, or is no concern of clang.
DROPPED = re.compile(r"^(-g\d?|-O\w|-fsanitize=.*|-fno-sanitize.*|-fno-omit-frame-pointer|-Werror)$")


def compile_arguments(entry):
    words = shlex.split(entry["command"])
    if os.path.basename(words[0]) == "ccache":
        words = words[1:]
    arguments = [word for word in words[1:] if not DROPPED.match(word)]
    if "-o" in arguments:
        at = arguments.index("-o")
        del arguments[at : at + 2]
    return [word for word in arguments if word != "-c" and word != entry["file"]]


def key_of(entry, settings):
    arguments = compile_arguments(entry)
    command = ["clang++", "-w", "-E", *arguments, entry["file"]]
    text = subprocess.run(command, cwd=entry["directory"], capture_output=True, check=False)
    if text.returncode != 0:
        return None
    # Comments are not in the preprocessed text, but NOLINT is one.
    own = Path(entry["file"]).read_bytes()
    return hashlib.sha256(b"\0".join([settings, " ".join(arguments).encode(), text.stdout, own])).hexdigest()


def tidy_one(entry, build, settings, cache):
    key = key_of(entry, settings)
    if key and (cache / key).exists():
        return None
    command = ["clang-tidy", "-p", str(build), *EXTRA, entry["file"]]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode == 0 and ": warning:" not in result.stdout:
        if key:
            (cache / key).touch()
        return None
    lines = [line for line in result.stdout.splitlines() if " error: " in line or " warning: " in line]
    return "\n".join(lines) or f"{entry['file']}: clang-tidy failed: {result.stderr.strip()[-500:]}"


def main(root, build, pattern):
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tarnfs-tidy"
    cache.mkdir(parents=True, exist_ok=True)
    version = subprocess.run(["clang-tidy", "--version"], capture_output=True, check=True).stdout
    # Headers' NOLINT comments count too.
    nolint = [(root / p).read_bytes() for p in tree.sources_of(root) if b"NOLINT" in (root / p).read_bytes()]
    settings = b"\0".join([version, (root / ".clang-tidy").read_bytes(), " ".join(EXTRA).encode(), *nolint])
    entries = json.loads((build / "compile_commands.json").read_text())
    entries = [e for e in entries if Path(e["file"]).is_relative_to(root) and re.search(pattern, e["file"])]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        findings = [f for f in pool.map(lambda e: tidy_one(e, build, settings, cache), entries) if f]
    # A finding in a header comes once for every source that includes it.
    unique = sorted(set("\n".join(findings).splitlines()))
    return tree.finish(unique, len(entries))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), sys.argv[3] if len(sys.argv) > 3 else ""))
