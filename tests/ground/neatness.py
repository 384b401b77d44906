#!/usr/bin/env python3
"""Fails on files and functions that are too long, left-over marks, and paths of somebody's machine.

usage: neatness.py ROOT

The length of C++ functions is watched by clang-tidy (readability-function-size).
"""

import ast
import re
import sys
from pathlib import Path

import tree

FILE_LINES_MAX = 800
FUNCTION_LINES_MAX = 70
CODE = (".h", ".cpp", ".py", ".cmake", ".sh")
# Texts that others wrote, or that are long by nature.
EXEMPT = ("LICENSE",)

# Put together from pieces, so that this file does not find itself.
MARKS = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK")) + r")\b")
MACHINE_PATHS = re.compile(r"(?<![\w.}>])(/home/\w+|/Users/\w+|/" + r"work/\w+|/root/\w+)")


def long_functions(path, text):
    findings = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = node.end_lineno - node.lineno + 1
            if lines >= FUNCTION_LINES_MAX:
                limit = FUNCTION_LINES_MAX - 1
                findings.append(f"{path}:{node.lineno}: {node.name} has {lines} lines, {limit} are allowed")
    return findings


def check_text(path, text):
    findings = []
    lines = text.splitlines()
    if path.suffix in CODE and len(lines) > FILE_LINES_MAX:
        findings.append(f"{path}: {len(lines)} lines, {FILE_LINES_MAX} are allowed")
    for number, line in enumerate(lines, 1):
        if MARKS.search(line):
            findings.append(f"{path}:{number}: a left-over mark: {line.strip()}")
        if MACHINE_PATHS.search(line):
            findings.append(f"{path}:{number}: a path of somebody's machine: {line.strip()}")
        if path.suffix == ".py" and len(line) > 120:
            findings.append(f"{path}:{number}: {len(line)} columns, 120 are allowed")
    if path.suffix == ".py":
        findings += long_functions(path, text)
    return findings


def check(root):
    findings = []
    files = [p for p in tree.files_of(root) if p.name not in EXEMPT]
    for path in files:
        content = (root / path).read_bytes()
        if b"\0" not in content:
            findings += check_text(path, content.decode("utf-8"))
    return findings, len(files)


if __name__ == "__main__":
    sys.exit(tree.finish(*check(Path(sys.argv[1]))))
