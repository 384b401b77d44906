"""The suites: which loads run on a mounted peer, and what has to happen between them."""

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import figures
import tree_source
from places import SCRATCH, BenchError, cpu_share, forget_pages, most_memory_mib, run, wait_for_rest

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
BLOCK_BYTES = 4096
SCALE_DIRECTORIES_MAX = 1000
SCALE_FILES_STEP = 100  # the number of files is a multiple of it
SCALE_SAMPLE = 20000
# So that what changes with time counts for both.
SCALE_THREAD_TURNS = (2, 8, 8, 2)
SCALE_SECONDS_MAX = 3600  # of one step
BYTES_PER_FILE = 8 << 10  # of an image: inode, name, and two copies of each


@dataclass
class Sizes:
    """How much each suite does. The tree and its copy together have fewer than 20,000 entries: passthrough peers hold a
    file open for each, and that is a common limit."""

    milliseconds: int = 5000
    files: int = 40000
    threads: int = 2
    sync_file_mib: int = 64
    stream_mib: int = 1024
    tree_files: int = 9000
    scale_files: int = 1_000_000
    mixed_file_mib: int = 256
    idle_milliseconds: int = 5000
    publish_blocks: int = 100_000

    def image_mib(self, suite):
        # Three times what the largest file takes: a copy-on-write file system needs room for the new beside the old.
        enough = max(2048, self.stream_mib * 3) if self.stream_mib >= 256 else 512
        return max(enough, self.scale_files * BYTES_PER_FILE >> 20) if suite == "scale" else enough

    def files_max(self, suite):
        """How many files an image must have room for, or None where any has."""
        return self.scale_files + 4 * SCALE_DIRECTORIES_MAX if suite == "scale" else None

    def scale_directories(self, shape):
        return 1 if shape == "one_directory" else max(2, min(SCALE_DIRECTORIES_MAX, self.scale_files // 100))


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


def mount_another(peer):
    """Made anew: nothing of what was done with it is left, nor of its daemon's memory."""
    peer.unmount()
    peer.remove()
    peer.create()
    peer.mount()


def run_scale(peer, load, sizes):
    peer.mount()
    for shape in figures.SHAPES:
        yield from run_shape(peer, load, sizes, shape)
        mount_another(peer)
    yield run_thread_turns(peer, load, sizes)
    if peer.daemon_pid():
        peer.settle()
        share = cpu_share(peer.daemon_pid(), sizes.idle_milliseconds / 1000)
        yield {"phase": "idle_cpu_percent", "unit": "%", "value": round(share * 100, 4)}
    peer.unmount()


def run_shape(peer, load, sizes, shape):
    """What an operation costs at a hundredth of the files, at a tenth, and at all of them."""
    place = make_place(peer, shape)
    words = [f"directories={sizes.scale_directories(shape)}", f"threads={sizes.threads}", f"sample={SCALE_SAMPLE}"]

    def step(name, files, *more):
        command = (load, "scale", place, f"step={name}", f"files={files}", *words, *more)
        return figures_of(run(*command, seconds=SCALE_SECONDS_MAX))

    total, there, parts = sizes.scale_files, 0, []
    for files in (total // 100, total // 10, total):
        made = step("create", files, f"from={there}", f"part={total // 10}")
        yield cost_figure(shape, "create", files, made)
        parts += made
        there = files
        peer.settle()
        for operation in ("stat", "open_close", "unlink"):
            step("forget", files)
            if peer.daemon_pid():
                wait_for_rest(peer.daemon_pid())
            yield cost_figure(shape, operation, files, step(operation, files))
        peer.settle()
    # The first two parts are the first tenth together.
    first = sum(part["seconds"] for part in parts[:2])
    tenths = [first, *(part["seconds"] for part in parts[2:])]
    value = round(first / tenths[-1], 4)
    yield {"phase": f"{shape}_create_last_to_first", "unit": "ratio", "value": value, "tenths_seconds": tenths}
    if peer.daemon_pid():
        value = round(most_memory_mib(peer.daemon_pid()), 1)
        yield {"phase": f"{shape}_memory_max", "unit": "MiB", "value": value}


def cost_figure(shape, operation, files, parts):
    operations, seconds = (sum(part[key] for part in parts) for key in ("operations", "seconds"))
    value = round(seconds / operations * 1e6, 3)
    phase = figures.cost_phase(shape, operation, files)
    return {"phase": phase, "unit": "us", "value": value, "operations": operations, "seconds": seconds}


def run_thread_turns(peer, load, sizes):
    """The rate at which 8 threads create files, through that of 2 threads: each in a new directory of its own."""
    place = make_place(peer, "threads")
    operations, seconds = {}, {}
    for turn, threads in enumerate(SCALE_THREAD_TURNS):
        peer.settle()
        words = [f"directory=turn{turn}", f"threads={threads}", f"files={sizes.scale_files // 20}"]
        (made,) = figures_of(run(load, "scale", place, "step=fresh", *words, seconds=SCALE_SECONDS_MAX))
        operations[threads] = operations.get(threads, 0) + made["operations"]
        seconds[threads] = seconds.get(threads, 0) + made["seconds"]
    rates = {threads: round(operations[threads] / seconds[threads], 1) for threads in sorted(seconds)}
    value = round(rates[8] / rates[2], 4)
    return {"phase": "threads_8_to_2", "unit": "ratio", "value": value, "rates": rates}


def run_mixed(peer, load, sizes):
    peer.mount()
    place = make_place(peer, "mixed")
    words = [f"milliseconds={sizes.milliseconds}", f"file_mib={sizes.mixed_file_mib}"]
    yield from figures_of(run(load, "mixed", place, *words))
    yield from peer.own_figures()
    peer.unmount()


def run_publish(peer, load, sizes):
    """One consistency point of many changed blocks, none of which compresses."""
    size_bytes = sizes.publish_blocks * BLOCK_BYTES
    # Nothing is written before it is asked for.
    peer.mount("cp_interval=3600", f"dirty_limit={4 * size_bytes + (64 << 20)}")
    path = make_place(peer, "publish") / "file"
    for _ in range(2):
        with open(path, "r+b" if path.exists() else "wb") as file:
            for offset in range(0, size_bytes, 1 << 20):
                file.write(os.urandom(min(1 << 20, size_bytes - offset)))
        done = peer.publish()
    yield {"phase": "durable", "unit": "s", "value": done["durable_seconds"]}
    yield {"phase": "published", "unit": "s", "value": done["seconds"]}
    yield {"phase": "published_to_durable", "unit": "x", "value": round(done["seconds"] / done["durable_seconds"], 4)}
    peer.unmount()


RUN = {
    "fsync": run_fsync,
    "metadata": run_metadata,
    "stream": run_stream,
    "tree": run_tree,
    "scale": run_scale,
    "mixed": run_mixed,
    "publish": run_publish,
}


def measure(suite, peer, load, sizes):
    """Yields the figures of one suite on one peer, which is made before and removed after it."""
    try:
        peer.create()
        for figure in RUN[suite](peer, load, sizes):
            peer.note_transport()
            yield figure
    finally:
        peer.remove()


