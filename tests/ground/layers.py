#!/usr/bin/env python3
"""Fails when an include crosses the layers the wrong way.

usage: layers.py ROOT LAYERS

LAYERS is what CMake wrote from layers.cmake: a line `folder:depends;depends` for each folder. A source may include its
own folder and the folders that it depends on, directly or through others. Heavy headers are allowed in few folders,
and there only in .cpp files or in headers that no other folder can see.
"""

import re
import sys
from pathlib import Path

import tree

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)

# Header, folders that may include it.
HEAVY = (
    (re.compile(r"^zmq"), ("mirror/channel",)),
    (re.compile(r"^cereal/"), ("mirror/wire",)),
    (re.compile(r"^(fuse3?/|fuse_|fuse\.h)"), ("fs/fuse",)),
    (re.compile(r"^spdlog/"), ("common",)),
    (re.compile(r"^xxh"), ("common",)),
    (re.compile(r"^lz4"), ("mirror/wire",)),
    (re.compile(r"^CLI/"), ("fs/control", "fs/tools", "mirror/daemon")),
    (re.compile(r"^nlohmann/"), ("fs/control", "fs/tools", "fs/daemon", "mirror/daemon")),
    (re.compile(r"^blkid/"), ("fs/tools",)),
)


def parse_layers(text):
    direct = {}
    for line in text.splitlines():
        if line.strip():
            folder, _, depends = line.strip().partition(":")
            direct[folder] = [name for name in depends.split(";") if name]
    return direct


def closure(direct):
    """Folder -> every folder that it may include. Folders are declared lowest first, so one pass is enough."""
    allowed = {}
    findings = []
    for folder, depends in direct.items():
        allowed[folder] = {folder}
        for other in depends:
            if other not in allowed:
                findings.append(f"layers.cmake: {folder} depends on {other}, which is not declared before it")
            allowed[folder] |= allowed.get(other, {other})
    return allowed, findings


def check_source(path, text, allowed, root):
    folder = str(path.parent)
    if folder not in allowed:
        return [f"{path}: its folder is not in layers.cmake"]
    findings = []
    for kind, name in INCLUDE.findall(text):
        for pattern, folders in HEAVY:
            if pattern.match(name) and kind == "<":
                if folder not in folders:
                    findings.append(f"{path}: <{name}> is allowed in {', '.join(folders)} only")
        if kind == '"':
            target = str(Path(name).parent)
            if target not in allowed:
                findings.append(f'{path}: "{name}" names no folder of layers.cmake; write the path from the top')
            elif target not in allowed[folder]:
                findings.append(f'{path}: "{name}" is forbidden: {folder} does not depend on {target}')
            elif not (root / name).is_file():
                findings.append(f'{path}: "{name}" does not exist')
    return findings


def check(root, layers_text):
    allowed, findings = closure(parse_layers(layers_text))
    sources = tree.sources_of(root)
    for path in sources:
        findings += check_source(path, (root / path).read_text(), allowed, root)
    return findings, len(sources)


if __name__ == "__main__":
    sys.exit(tree.finish(*check(Path(sys.argv[1]), Path(sys.argv[2]).read_text())))
