"""The suites: which loads run on a mounted peer, and what has to happen between them."""

import json
import os
import sys
import time
from pathlib import Path

import tree_source
from places import SCRATCH, BenchError, forget_pages, run

SOURCES = Path(__file__).resolve().parent
STREAM_PHASES = (
    # (phase, whether nothing of the file may be in memory before it)
    ("write_fsync", False),
    ("read_cold", True),
    ("read_warm", False),
    ("random_read_4k_cold_1_job", True),
    ("random_read_4k_cold_8_jobs", True),
    ("random_write_4k_fsync_at_end", False),
)
SQLITE_MODES = ("delete", "wal")
AMPLIFICATION_PHASE = "write_amplification"


class Sizes:
    """How much each suite does. The tree and its copy together have fewer than 20,000 entries: passthrough peers hold a
    file open for each, and that is a common limit."""

    def __init__(self, milliseconds=5000, files=40000, threads=2, sync_file_mib=64, stream_mib=1024, tree_files=9000):
        self.milliseconds = milliseconds
        self.files = files
        self.threads = threads
        self.sync_file_mib = sync_file_mib
        self.stream_mib = stream_mib
        self.tree_files = tree_files

    def image_mib(self):
        # Three times what the largest file takes: a copy-on-write file system needs room for the new beside the old.
        return max(2048, self.stream_mib * 3) if self.stream_mib >= 256 else 512


def figures_of(output):
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def make_place(peer, name):
    place = peer.mountpoint / name
    run("mkdir", place)
    return place


def run_fsync(peer, load, sizes):
    peer.mount()
    place = make_place(peer, "fsync")
    words = [f"milliseconds={sizes.milliseconds}", f"file_mib={sizes.sync_file_mib}"]
    yield from figures_of(run(load, "fsync", place, *words))
    yield from run_sqlite(peer, sizes)
    peer.unmount()
    # Mounted anew, so that nothing of what went before is still to be written.
    peer.mount()
    yield from run_amplification(peer, load, sizes)
    peer.unmount()


def run_sqlite(peer, sizes):
    place = make_place(peer, "sqlite")
    for mode in SQLITE_MODES:
        yield from figures_of(run(sys.executable, SOURCES / "sqlite_load.py", place, mode, sizes.milliseconds))


def run_amplification(peer, load, sizes):
    """How many bytes reach the image for each byte of a large file, until its fsync has returned."""
    before = peer.written_bytes()
    place = make_place(peer, "large")
    (figure,) = figures_of(run(load, "stream", place, "phase=write_fsync", f"file_mib={sizes.stream_mib}"))
    yield {**figure, "phase": "large_write_fsync"}
    if before is None:
        return
    written = peer.written_bytes() - before
    # In an image on tmpfs nothing is accounted as written.
    if written > 0:
        value = written / (sizes.stream_mib << 20)
        yield {"phase": AMPLIFICATION_PHASE, "unit": "x", "value": value, "written_bytes": written}


def run_metadata(peer, load, sizes):
    peer.mount()
    place = make_place(peer, "metadata")
    yield from figures_of(run(load, "metadata", place, f"files={sizes.files}", f"threads={sizes.threads}"))
    if peer.keeps_data:
        yield from run_sqlite(peer, sizes)
    peer.unmount()


def mount_anew(peer):
    """Afterwards nothing of what the file system holds is in memory."""
    if peer.can_remount:
        peer.unmount()
        forget_pages()
        peer.mount()
    else:
        forget_pages()


def run_stream(peer, load, sizes):
    peer.mount()
    place = make_place(peer, "stream")
    for phase, cold in STREAM_PHASES:
        if cold:
            mount_anew(peer)
        words = [f"phase={phase}", f"file_mib={sizes.stream_mib}", f"milliseconds={sizes.milliseconds}"]
        yield from figures_of(run(load, "stream", place, *words))
    peer.unmount()


class Stopwatch:
    """Adds up the seconds of the commands that it runs."""

    def __init__(self):
        self.seconds = 0.0

    def call(self, function, *arguments, **options):
        begun = time.perf_counter()
        result = function(*arguments, **options)
        self.seconds += time.perf_counter() - begun
        return result

    def figure(self, phase):
        return {"phase": phase, "unit": "s", "value": round(self.seconds, 5)}


def timed(phase, *command, **options):
    """Runs a command and returns its figure and its output."""
    watch = Stopwatch()
    output = watch.call(run, *command, **options)
    return watch.figure(phase), output


def tree_archive(file_count):
    """The tar of the tree, made once in a run, and how many entries it has."""
    archive, count = SCRATCH / f"tree-{file_count}.tar", SCRATCH / f"tree-{file_count}.entries"
    if not count.exists():
        count.write_text(str(tree_source.write_tar(archive, file_count)))
    return archive, int(count.read_text())


def run_tree(peer, load, sizes):
    archive, entries = tree_archive(sizes.tree_files)
    peer.mount()
    place = make_place(peer, "tree")
    yield from run_untar(peer, archive, place)
    forget_pages()
    peer.mount()
    source, copy = place / tree_source.TOP_NAME, place / "copy"
    figure, output = timed("find_stat_cold", "find", source, "-printf", "%s %m\n")
    if (found := output.count("\n")) != entries:
        raise BenchError(f"find sees {found} of {entries} entries in {source}")
    yield figure
    mount_anew(peer)
    # Its exit code says that nothing was found. Which locale is set shall not matter.
    plain = dict(os.environ, LC_ALL="C")
    words = ("grep", "-r", tree_source.ABSENT_WORD, source)
    figure, _ = timed("grep_cold", *words, codes=(1,), environment=plain)
    yield figure
    for phase, *command in (("cp_a", "cp", "-a", source, copy), ("rm_r", "rm", "-r", copy)):
        figure, _ = timed(phase, *command)
        yield figure
    peer.unmount()


def run_untar(peer, archive, place):
    """The peer is unmounted at the end."""
    watch = Stopwatch()
    watch.call(run, "tar", "-x", "-f", archive, "-C", place)
    yield watch.figure("untar")
    watch.call(run, "sync", "-f", place)
    yield watch.figure("untar_sync")
    watch.call(peer.unmount)
    yield watch.figure("untar_unmount")


RUN = {"fsync": run_fsync, "metadata": run_metadata, "stream": run_stream, "tree": run_tree}


def measure(suite, peer, load, sizes):
    """Yields the figures of one suite on one peer, which is made before and removed after it."""
    try:
        peer.create()
        for figure in RUN[suite](peer, load, sizes):
            peer.note_transport()
            yield figure
    finally:
        peer.remove()


