"""The suites: which loads run on a mounted peer, and what has to happen between them."""

import json
import sys
from pathlib import Path

from places import forget_pages, run

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
AMPLIFICATION_PHASE = "write_amplification"


class Sizes:
    """How much each suite does."""

    def __init__(self, milliseconds=5000, files=40000, threads=2, sync_file_mib=64, stream_mib=1024):
        self.milliseconds = milliseconds
        self.files = files
        self.threads = threads
        self.sync_file_mib = sync_file_mib
        self.stream_mib = stream_mib

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
    place = make_place(peer, "sqlite")
    for mode in ("delete", "wal"):
        yield from figures_of(run(sys.executable, SOURCES / "sqlite_load.py", place, mode, sizes.milliseconds))
    peer.unmount()
    # Mounted anew, so that nothing of what went before is still to be written.
    peer.mount()
    yield from run_amplification(peer, load, sizes)
    peer.unmount()


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
    peer.unmount()


def run_stream(peer, load, sizes):
    peer.mount()
    place = make_place(peer, "stream")
    for phase, cold in STREAM_PHASES:
        if cold and peer.can_remount:
            peer.unmount()
            forget_pages()
            peer.mount()
        elif cold:
            forget_pages()
        words = [f"phase={phase}", f"file_mib={sizes.stream_mib}", f"milliseconds={sizes.milliseconds}"]
        yield from figures_of(run(load, "stream", place, *words))
    peer.unmount()


RUN = {"fsync": run_fsync, "metadata": run_metadata, "stream": run_stream}


def measure(suite, peer, load, sizes):
    """Yields the figures of one suite on one peer, which is made before and removed after it."""
    try:
        peer.create()
        yield from RUN[suite](peer, load, sizes)
    finally:
        peer.remove()


