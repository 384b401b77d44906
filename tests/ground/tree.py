"""What the ground tests share: the repository's files and a small way to report findings."""

import subprocess
import sys
from pathlib import Path

SOURCE_FOLDERS = ("common", "fs", "mirror")


def files_of(root):
    """Every file of the repository, tracked or new, relative to `root`; without git, all but builds."""
    listing = subprocess.run(
        ["git", "-C", str(root), "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        capture_output=True,
        check=False,
    )
    if listing.returncode == 0:
        names = [name for name in listing.stdout.decode().split("\0") if name]
    else:
        names = [str(p.relative_to(root)) for p in sorted(root.rglob("*")) if p.is_file()]
        names = [name for name in names if not name.startswith((".git/", "build"))]
    return [Path(name) for name in names if (root / name).is_file()]


def sources_of(root, folders=SOURCE_FOLDERS):
    return [p for p in files_of(root) if p.suffix in (".h", ".cpp") and p.parts[0] in folders]


def finish(findings, checked):
    """Prints the findings and returns the exit code."""
    for finding in findings:
        print(finding)
    print(f"{checked} files checked, {len(findings)} findings", file=sys.stderr)
    if checked == 0:
        print("nothing was checked: that is a mistake too", file=sys.stderr)
        return 1
    return 1 if findings else 0
