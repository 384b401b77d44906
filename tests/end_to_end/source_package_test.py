#!/usr/bin/env python3
"""A real source package of more than 5,000 files is unpacked, configured and built inside the volume.

Meanwhile pairs of files are written there and read at the mirror (pairs.py). At the end the mirror has everything. The
package comes from Debian's archive, as the system's own sources name it; where that cannot be reached the test is
skipped. Only at full size.
"""

import os
import re
import unittest
from pathlib import Path

import harness
import pairs
from harness import TarnTest, free_port, run, tarn

PACKAGE = "perl"
FILES_MIN = 5000


def fetch_source(directory):
    """Downloads the package's source with a package list of its own: the system's stays as it is."""
    parts = directory / "parts"
    parts.mkdir()
    (directory / "lists" / "partial").mkdir(parents=True)
    stanzas = []
    for path in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")):
        stanzas += path.read_text().split("\n\n")
    # The release as it was made: security updates come and go.
    stanzas = [stanza for stanza in stanzas if "-security" not in stanza]
    sources = "\n\n".join(re.sub(r"^Types:.*", "Types: deb-src", stanza, flags=re.MULTILINE) for stanza in stanzas)
    (parts / "own.sources").write_text(sources)
    old = Path("/etc/apt/sources.list")
    if old.exists():
        lines = [line for line in old.read_text().splitlines() if line.startswith("deb ") and "security" not in line]
        (parts / "own.list").write_text("\n".join(line.replace("deb ", "deb-src ", 1) for line in lines) + "\n")
    options = ["-o", f"Dir::Etc::sourceparts={parts}", "-o", f"Dir::State::lists={directory}/lists"]
    options += ["-o", "Dir::Etc::sourcelist=/dev/null", "-o", "APT::Sandbox::User=root"]
    for command in (["update"], ["source", "--download-only", PACKAGE]):
        if run("apt-get", "-qq", *options, *command, expect=None, cwd=directory, seconds=600).returncode != 0:
            raise unittest.SkipTest(f"the source of {PACKAGE} cannot be fetched here")
    return next(path for path in directory.glob(f"{PACKAGE}_*.orig.tar.*") if not path.name.endswith(".asc"))


class SourcePackage(TarnTest):
    def test_build_in_the_volume(self):
        downloads = self.make_directory("downloads")
        archive = fetch_source(downloads)
        port = free_port()
        image = self.make_volume(size="8G")
        mirror = self.start_mirror(port)
        primary = self.mount(image, options="cp_interval=1,dev,suid", mirror=port)
        root = primary.mountpoint
        (root / "pairs").mkdir()
        watch = pairs.PairWatch(
            pairs.Attributes, root / "pairs", mirror.mountpoint / "pairs", publish=lambda: tarn("cp", "--mirror", root)
        )
        watch.start()
        try:
            self.build(archive, root / "source")
        finally:
            watch.stop()
        print(f"{watch.states_seen} states seen, {watch.reads_undisturbed} pairs read within one", flush=True)
        self.assertGreater(watch.states_seen, 10)
        tarn("cp", "--mirror", root)
        self.assert_same_tree(root, mirror.mountpoint)
        primary.unmount()
        mirror.terminate()
        self.assert_clean(image)
        self.assert_clean(self.directory / "mirror.tarnfs")

    def build(self, archive, source):
        source.mkdir()
        run("tar", "-xf", archive, "-C", source, "--strip-components=1", seconds=600)
        self.assertGreaterEqual(sum(len(names) for _, _, names in os.walk(source)), FILES_MIN)
        # Configure tries out signals: in a session of their own none of them gets at the daemons and the test.
        work = {"cwd": source, "start_new_session": True}
        run("sh", "./Configure", "-des", "-Uman1dir", "-Uman3dir", seconds=1800, **work)
        run("make", f"-j{os.cpu_count()}", seconds=5400, **work)
        result = run("./perl", "-Ilib", "-MPOSIX", "-e", "print POSIX::floor(42.5)", cwd=source)
        self.assertEqual(result.stdout, "42")


if __name__ == "__main__":
    harness.main()
