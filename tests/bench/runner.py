"""The command: reads its arguments, runs rounds of suites on peers in turn, and writes the report as it grows."""

import argparse
import os
import platform
import re
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import peers as all_peers
import places
import report
import suites
from places import BenchError

TOP = Path(__file__).resolve().parents[2]
RESULTS = TOP / "build" / "bench-results"
DISK = Path("/var/tmp")
MEMORY = Path("/dev/shm")
QUICK_PEERS = ("tarnfs", "ext4", "btrfs")
VARIANT_HELP = (
    "one more tarnfs, with these mount options; of our own are bin=DIR for other programs, and mirror for a mirror"
)

SUITE_HELP = (
    "fsync: small durable changes; metadata: names and attributes; stream: one large file; tree: a source tree; "
    "scale: what an operation costs among up to a million files, and the daemon's memory; mixed: changes of names "
    "beside work that wants the processors too; publish: a large consistency point until it is durable here, and until "
    "its mirror has published it. Default all; with --quick that is all but scale, which takes two "
    "minutes and more for each peer and round"
)


class Variant(NamedTuple):
    """Another tarnfs: other options, other programs, or a mirror."""

    name: str
    options: str
    binaries: Path | None
    mirrored: bool


def variant_of(text):
    name, equals, rest = text.partition("=")
    if not equals or not re.fullmatch(r"[\w.-]+", name) or name in all_peers.CLASSES:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=OPTIONS with a new name")
    binaries, mirrored, options = None, False, []
    for option in filter(None, rest.split(",")):
        if option == "mirror":
            mirrored = True
        elif option.startswith("bin="):
            binaries = Path(option.removeprefix("bin=")).resolve()
        else:
            options.append(option)
    return Variant(name, ",".join(options), binaries, mirrored)


def parse(words):
    parser = argparse.ArgumentParser(
        prog="tests/bench/run",
        description="Measures tarnfs and its peers in turn and writes medians and ratios as Markdown, JSON and SVG.",
        epilog="Needs root. TARNFS_BIN is the directory with the programs to measure, else build/release, else PATH. "
        "TARNFS_BENCH_PASSTHROUGH names directories with passthrough_hp, built or as source, where neither "
        "packaging/libfuse/build nor libfuse3-dev has left one.",
    )
    known = ",".join(all_peers.CLASSES)
    quick = ",".join(QUICK_PEERS)
    add = parser.add_argument
    add("--suite", choices=[*all_peers.SUITES, "all"], default="all", help=SUITE_HELP)
    add("--rounds", type=int, default=3, metavar="N", help="at least 3 for figures to be shown; default 3")
    add("--on", type=Path, metavar="DIR", help=f"where the images go; default {DISK} for fsync, else {MEMORY}")
    add("--peers", metavar="A,B,C", help=f"of {known}; default all, with --quick {quick}")
    add("--variant", type=variant_of, action="append", default=[], metavar="NAME=OPTIONS", help=VARIANT_HELP)
    add("--output", type=Path, default=RESULTS, metavar="DIR", help="default build/bench-results")
    add("--quick", action="store_true", help="2 s for each timed phase, fewer files, and three peers unless named")
    add("--tiny", action="store_true", help="shows that everything works; its figures mean nothing")
    add("--sparse", action="store_true", help="do not write the images of the fsync suite before their use")
    files = "of the metadata suite; default 40000, or fewer where a passthrough peer could not have so many files open"
    add("--files", type=int, metavar="N", help=files)
    files = f"of the scale suite, a multiple of {suites.SCALE_FILES_STEP}; default 1000000, with --quick 200000"
    add("--scale-files", type=int, metavar="N", help=files)
    add("--threads", type=int, default=2, metavar="N", help="of the metadata and the scale suite; default 2")
    arguments = parser.parse_args(words)
    arguments.suites = suites_of(arguments)
    default = QUICK_PEERS if arguments.quick or arguments.tiny else tuple(all_peers.CLASSES)
    arguments.names = tuple(arguments.peers.split(",")) if arguments.peers else default
    unknown = [name for name in arguments.names if name not in all_peers.CLASSES]
    if unknown:
        parser.error(f"no such peer: {', '.join(unknown)}; there are {known}")
    if arguments.rounds < 1:
        parser.error("at least one round")
    if arguments.scale_files is not None:
        step = suites.SCALE_FILES_STEP
        if arguments.scale_files < step or arguments.scale_files % step != 0:
            parser.error(f"the files of the scale suite are a multiple of {step}")
    for path in filter(None, [arguments.on]):
        if not path.is_dir():
            parser.error(f"{path} is no directory")
    return arguments


def suites_of(arguments):
    if arguments.suite != "all":
        return (arguments.suite,)
    return tuple(suite for suite in all_peers.SUITES if suite != "scale" or arguments.tiny or not arguments.quick)


def sizes_of(arguments, open_files_max):
    """The same for all peers of a run, so that each of them can do it."""
    if arguments.tiny:
        sizes = suites.Sizes(
            milliseconds=100,
            files=400,
            sync_file_mib=4,
            stream_mib=32,
            tree_files=300,
            scale_files=400,
            mixed_file_mib=8,
            publish_blocks=1000,
            idle_milliseconds=100,
        )
    elif arguments.quick:
        sizes = suites.Sizes(milliseconds=2000, files=20000, tree_files=4000, scale_files=200_000)
    else:
        sizes = suites.Sizes()
    if any(issubclass(all_peers.CLASSES[name], all_peers.Passthrough) for name in arguments.names):
        # They hold a file open for each name that the kernel knows.
        sizes.files = min(sizes.files, open_files_max * 9 // 10)
    sizes.files = arguments.files or sizes.files
    sizes.scale_files = arguments.scale_files or sizes.scale_files
    sizes.threads = arguments.threads
    return sizes


def directory_for(arguments, suite):
    return (arguments.on or (DISK if suite == "fsync" else MEMORY)).resolve()


def binaries_to_measure():
    given = os.environ.get("TARNFS_BIN")
    if given:
        return Path(given).resolve()
    built = TOP / "build" / "release"
    return built if built.is_dir() else None


def say(text):
    print(text, file=sys.stderr, flush=True)


def first_line(*command):
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "not there"
    return ((result.stdout or result.stderr).strip().splitlines() or ["unknown"])[0]


def free_memory_goes_back():
    """Whether a hypervisor takes what is freed: what is used anew then costs some microseconds a page."""
    feature = 5  # VIRTIO_BALLOON_F_REPORTING (virtio 1.2, 5.5.3)
    found = Path("/sys/bus/virtio/drivers/virtio_balloon").glob("*/features")
    return any(features.read_text()[feature] == "1" for features in found)


def describe_machine(binaries):
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    processor = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    uring = Path("/sys/module/fuse/parameters/enable_uring")
    tarnfs = places.program("tarnfs", binaries)
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "kernel": platform.release(),
        "processor": f"{os.cpu_count()} x {processor.group(1) if processor else platform.machine()}",
        "memory_gib": round(int(memory.group(1)) / 2**20, 1) if memory else None,
        "tarnfs": first_line(tarnfs, "--version") if tarnfs else "not there",
        "source_tree": first_line("git", "-C", str(TOP), "describe", "--always", "--dirty"),
        "free_page_reporting": "on" if free_memory_goes_back() else "off",
        "fuse_over_io_uring": uring.read_text().strip() if uring.exists() else "not in this kernel",
        "mkfs.ext4": first_line("mkfs.ext4", "-V"),
        "mkfs.btrfs": first_line("mkfs.btrfs", "-V"),
    }


class Session:
    """One run of the command, inside its namespaces."""

    def __init__(self, arguments, directories):
        self.arguments = arguments
        self.sizes = sizes_of(arguments, places.raise_open_files())
        self.binaries = binaries_to_measure()
        self.directories = directories
        self.record = {
            "machine": describe_machine(self.binaries),
            "command": " ".join(["tests/bench/run", *sys.argv[1:]]),
            "rounds": arguments.rounds,
            "peers": [],
            "places": {},
            "sizes": vars(self.sizes),
            "skipped": {},
            "transports": {},
            "failed": [],
            "load_averages": [],
            "results": {},
        }

    def bench(self, suite):
        base = directory_for(self.arguments, suite)
        kind = places.file_system_type(base)
        on_disk = kind != "tmpfs"
        settled = suite == "fsync" and on_disk and not self.arguments.sparse
        self.record["places"][suite] = {
            "directory": str(base),
            "file_system": kind,
            "loop_direct_io": on_disk,
            "images_written_before": settled,
        }
        work = self.directories[base] / suite
        work.mkdir(exist_ok=True)
        sizes = self.sizes.image_mib(suite), self.sizes.files_max(suite)
        return all_peers.Bench(work, self.binaries, *sizes, on_disk, settled)

    def available(self, suite, bench):
        """The peers that can be measured; the others are named."""
        found = []
        for peer in all_peers.make_peers(self.arguments.names, self.arguments.variant, bench):
            if reason := peer.why_unfit(suite):
                self.skip(peer.name, suite, reason)
            elif reason := peer.missing():
                self.skip(peer.name, suite, reason)
            else:
                found.append(peer)
        self.record["peers"] += [peer.name for peer in found if peer.name not in self.record["peers"]]
        return found

    def skip(self, name, suite, reason):
        self.record["skipped"].setdefault(name, {})[suite] = reason
        say(f"skipped: {name} in {suite}: {reason}")

    def run(self):
        for suite in self.arguments.suites:
            bench = self.bench(suite)
            load = bench.built("tarnfs_bench_load")
            present = self.available(suite, bench)
            for number in range(self.arguments.rounds):
                first = number % len(present) if present else 0
                for peer in present[first:] + present[:first]:
                    self.measure(suite, number, peer, load)
                    report.write(self.record, self.arguments.output)
        report.write(self.record, self.arguments.output)

    def measure(self, suite, number, peer, load):
        begun = time.monotonic()
        average = os.getloadavg()[0]
        results = self.record["results"].setdefault(suite, {})
        transports = self.record["transports"].setdefault(suite, {})
        try:
            for figure in suites.measure(suite, peer, load, self.sizes):
                phase = figure.pop("phase")
                results.setdefault(phase, {}).setdefault(peer.name, {})[number] = figure
                if peer.transport not in transports.setdefault(peer.name, []):
                    transports[peer.name].append(peer.transport)
        except BenchError as error:
            self.record["failed"].append({"suite": suite, "round": number, "peer": peer.name, "reason": str(error)})
            say(f"failed: {error}")
        self.record["load_averages"].append(average)
        took = time.monotonic() - begun
        say(f"{suite}, round {number + 1} of {self.arguments.rounds}: {peer.name} took {took:.0f} s")


def main(words):
    arguments = parse(words)
    if os.geteuid() != 0:
        say("tests/bench/run: mounts and loop devices need root; run it as root")
        return 1
    directories = places.places_inside()
    if directories is None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        bases = sorted({directory_for(arguments, suite) for suite in arguments.suites})
        return places.run_inside([str(Path(__file__).with_name("run")), *words], bases)
    try:
        places.prepare_inside()
        session = Session(arguments, directories)
        session.run()
    except BenchError as error:
        say(f"tests/bench/run: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    print((arguments.output / "results.md").read_text())
    if not session.record["results"]:
        say("tests/bench/run: nothing was measured")
        return 1
    return 1 if session.record["failed"] else 0
