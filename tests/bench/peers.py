"""What is measured: tarnfs, alone and with a mirror, and the file systems beside it.

Each peer is made anew for every suite of every round, in a directory of its own: create(), then mount() and unmount()
as often as is needed, then remove(). missing() says why a peer cannot be measured here, or None.
"""

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

from places import BenchError, Daemon, has_io_uring, program, run, unmount, wait_for_rest

SOURCES = Path(__file__).resolve().parent
# What packaging/libfuse/build made, if it did: a newer libfuse than the system's, with io_uring, and its examples.
LIBFUSE = SOURCES.parents[1] / "build" / "libfuse"
EXAMPLES = (LIBFUSE / "examples", Path("/usr/share/doc/libfuse3-dev/examples"))
SUITES = ("fsync", "metadata", "stream", "tree", "scale", "mixed", "publish")
KEEPS_NOTHING = "it does not keep what is written to it"
HOLDS_FILES_OPEN = "it holds a file open for each name that the kernel knows"
SEARCHES_LINEARLY = "it reads a directory from its begin to find a name, so that creating n files takes n squared"
CREATES_SLOWLY = "it takes nearly a millisecond to create a file, and so more than half an hour for each round"
EXAMPLES_FOUND = ("UTIMENSAT", "FALLOCATE", "POSIX_FALLOCATE", "COPY_FILE_RANGE", "SETXATTR", "SYS_XATTR_H")
IO_URING = "io_uring"
CLASSIC = "/dev/fuse"


class Bench:
    """What all peers share: where they are, how large their images are, where programs come from."""

    def __init__(self, directory, binaries, image_mib, files, direct, settled):
        self.directory = directory
        self.binaries = binaries
        self.image_bytes = image_mib << 20
        self.files = files  # how many an image must have room for; None: as many as a file system has by default
        self.direct = direct  # loop devices read and write their image with O_DIRECT
        self.settled = settled  # images are written once before anything is made in them

    def make_image(self, path):
        """A file of the images' size. A settled one has all its blocks, so that no write pays for the allocation of
        space in the file system below; else it is sparse."""
        with open(path, "wb", buffering=0) as image:
            if self.settled:
                chunk = bytes(4 << 20)
                for _ in range(self.image_bytes // len(chunk)):
                    image.write(chunk)
                os.fsync(image.fileno())
            else:
                image.truncate(self.image_bytes)

    def built(self, name):
        """One of the benchmark's own programs: from the build directory, or else compiled now."""
        found = self.binaries and program(name, self.binaries)
        return found or compiled(self.directory, name)


def fuse_flags():
    """The compiler's flags for the libfuse that tarnfs is built with: its own one where that was made."""
    paths = [str(LIBFUSE / "lib" / "pkgconfig"), os.environ.get("PKG_CONFIG_PATH", "")]
    environment = dict(os.environ, PKG_CONFIG_PATH=os.pathsep.join(filter(None, paths)))
    return run("pkg-config", "--cflags", "--libs", "fuse3", environment=environment).split()


def compiled(directory, name):
    """Compiles a program of this directory where no build has it; raises BenchError when that fails."""
    target = directory / name
    if target.exists():
        return str(target)
    compiler = os.environ.get("CXX", "c++")
    flags = ["-std=c++20", "-O2", "-pthread"]
    if name == "tarnfs_bench_load":
        run(compiler, *flags, *sorted(SOURCES.glob("load*.cpp")), "-o", target)
    else:
        source = SOURCES / f"{name.removeprefix('tarnfs_bench_')}.cpp"
        run(compiler, *flags, source, "-o", target, *fuse_flags())
    return str(target)


class Peer:
    """A file system to measure. Subclasses say how it is made and mounted."""

    unfit = {}  # {suite: why it cannot be measured in it}
    can_remount = True
    keeps_data = True
    has_mirror = False

    def __init__(self, name, bench):
        self.name = name
        self.bench = bench
        self.directory = bench.directory / name
        self.mountpoint = self.directory / "mount"
        self.image = self.directory / "image"
        self.daemon = None
        self.transport = None

    def missing(self):
        return None

    def why_unfit(self, suite):
        return "it has no mirror" if suite == "publish" and not self.has_mirror else self.unfit.get(suite)

    def create(self):
        self.transport = None
        self.directory.mkdir()
        self.mountpoint.mkdir()
        self.make()

    def make(self):
        pass

    def mount(self):
        raise NotImplementedError

    def unmount(self):
        daemon, self.daemon = self.daemon, None
        daemon.unmount()

    def remove(self):
        if self.daemon is not None:
            self.daemon.kill()
            self.daemon = None
        shutil.rmtree(self.directory)

    def written_bytes(self):
        """How much has been written to the image since the mount, or None where that is not known."""
        return None

    def daemon_pid(self):
        """The process that serves the mount, or None where the kernel does."""
        return self.daemon.process.pid if self.daemon else None

    def settle(self):
        """Afterwards what was changed is in the image, and the daemon has come to rest."""
        self.write_back()
        if self.daemon:
            wait_for_rest(self.daemon_pid())

    def write_back(self):
        run("sync", "-f", self.mountpoint)

    def own_figures(self):
        """What it says of itself at the end of the mixed suite."""
        return []

    def note_transport(self):
        """Once it has answered requests: a FUSE daemon starts its rings only after the mount."""
        if self.transport is None:
            self.transport = self.find_transport()

    def find_transport(self):
        if self.daemon is None:
            return "none"
        return IO_URING if has_io_uring(self.daemon_pid()) else CLASSIC

    def start(self, command, ready=""):
        self.daemon = Daemon(self.name, command, self.mountpoint, self.directory / "log", ready)

    def needs(self, *names):
        absent = [name for name in names if shutil.which(name) is None]
        return f"not installed: {', '.join(absent)}" if absent else None


class Tarnfs(Peer):
    def __init__(self, name, bench, options="", binaries=None):
        super().__init__(name, bench)
        self.options = options
        self.binaries = binaries or bench.binaries

    def program(self, name):
        found = program(name, self.binaries)
        if found is None:
            raise BenchError(f"there is no {name} in {self.binaries or 'PATH'}; build it, or set TARNFS_BIN")
        return found

    def missing(self):
        if not Path("/dev/fuse").exists():
            return "there is no /dev/fuse"
        try:
            self.program("tarnfs")
            self.program("mkfs.tarnfs")
            self.program("tarn")
        except BenchError as error:
            return str(error)
        return None

    def make(self):
        self.bench.make_image(self.image)
        run(self.program("mkfs.tarnfs"), "-f", "-s", self.bench.image_bytes, self.image)

    def mount(self, *more_options):
        options = ",".join(option for option in (self.options, *more_options) if option)
        self.start([self.program("tarnfs"), "-f", *(["-o", options] if options else []), self.image, self.mountpoint])

    def find_transport(self):
        return IO_URING if self.status().get("transport") == IO_URING else CLASSIC

    def status(self):
        return json.loads(run(self.program("tarn"), "status", "--json", self.mountpoint))

    def write_back(self):
        run(self.program("tarn"), "cp", self.mountpoint)

    def own_figures(self):
        wait = self.status()["cp_wait"]
        value = round(wait["p999_ns"] / 1e6, 4)
        return [{"phase": "cp_wait_p999_ms", "unit": "ms", "value": value, "longest_ms": wait["longest_ns"] / 1e6}]

    def written_bytes(self):
        lines = Path(f"/proc/{self.daemon_pid()}/io").read_text().splitlines()
        return int(dict(line.split(": ") for line in lines)["write_bytes"])


class TarnfsWithMirror(Tarnfs):
    """The same with tarn-mirrord on this machine, over loopback, its image on the same disk."""

    has_mirror = True

    def __init__(self, name, bench, options="", binaries=None):
        super().__init__(name, bench, options, binaries)
        self.mirror = None
        self.port = None

    def missing(self):
        if program("tarn-mirrord", self.binaries) is None:
            return "there is no tarn-mirrord"
        return super().missing()

    def make(self):
        super().make()
        shown = self.directory / "mirror"
        shown.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [self.program("tarn-mirrord"), "-f", "--listen", f"tcp://127.0.0.1:{self.port}"]
        command += ["--image", self.directory / "mirror-image", "--mount", shown, *self.mirror_words()]
        self.mirror = Daemon(f"{self.name}'s mirror", command, shown, self.directory / "mirror-log")

    def mirror_words(self):
        """More for tarn-mirrord."""
        return []

    def mirror_options(self):
        """More mount options of the primary."""
        return []

    def mount(self, *more_options):
        super().mount(*more_options, f"mirror=tcp://127.0.0.1:{self.port}", *self.mirror_options())
        # The first copy is over before the clock starts.
        self.write_back()

    def write_back(self):
        self.publish()

    def publish(self):
        """What `tarn cp --mirror` says of it."""
        return json.loads(run(self.program("tarn"), "cp", "--mirror", self.mountpoint))

    def remove(self):
        if self.mirror is not None:
            self.mirror.kill()
            self.mirror = None
        super().remove()


class TarnfsWithKeys(TarnfsWithMirror):
    """The same with keys: all that goes to the mirror is encrypted."""

    def make(self):
        own, of_mirror = self.directory / "keys", self.directory / "mirror-keys"
        for keys in (own, of_mirror):
            run(self.program("tarn"), "keygen", keys)
        shutil.copy(of_mirror / "public.key", own / "peers" / "127.0.0.1")
        shutil.copy(own / "public.key", of_mirror / "peers" / "primary")
        super().make()

    def mirror_words(self):
        return ["--keys", self.directory / "mirror-keys"]

    def mirror_options(self):
        return [f"keys={self.directory / 'keys'}"]


class Loop(Peer):
    """A file system of the kernel on a loop device. Discard is off, so that the image keeps its blocks."""

    MAKE = {
        "ext4": ["mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"],
        "btrfs": ["mkfs.btrfs", "-q", "-f", "-K"],
        "xfs": ["mkfs.xfs", "-q", "-f", "-K"],
    }
    OPTIONS = {"ext4": "nodiscard", "btrfs": "nodiscard", "xfs": "nodiscard"}

    def __init__(self, name, bench):
        super().__init__(name, bench)
        self.device = None
        self.mounted = False
        self.written_before = 0

    def missing(self):
        if self.name not in Path("/proc/filesystems").read_text().split():
            # A module may be there without being loaded.
            if subprocess.run(["modprobe", "-q", self.name], check=False).returncode != 0:
                return f"the kernel has no {self.name}"
        if not Path("/dev/loop-control").exists():
            return "there are no loop devices"
        return self.needs(self.MAKE[self.name][0], "losetup")

    def make(self):
        self.bench.make_image(self.image)
        # The others make inodes as they need them.
        inodes = ["-N", self.bench.files] if self.name == "ext4" and self.bench.files else []
        run(*self.MAKE[self.name], *inodes, self.image)

    def mount(self):
        direct = "on" if self.bench.direct else "off"
        self.device = run("losetup", "--find", "--show", f"--direct-io={direct}", self.image).strip()
        try:
            run("mount", "-t", self.name, "-o", self.OPTIONS[self.name], self.device, self.mountpoint)
            self.mounted = True
        finally:
            # Takes effect when the mount ends, whoever ends it.
            run("losetup", "--detach", self.device)
        used = Path(f"/sys/block/{Path(self.device).name}/loop/dio").read_text().strip()
        if self.bench.direct and used != "1":
            raise BenchError(f"{self.device} cannot do direct I/O on {self.image}; its flushes would not compare")
        self.written_before = self.sectors_written()

    def unmount(self):
        self.mounted = False
        unmount(self.mountpoint)

    def remove(self):
        if self.mounted:
            run("umount", "-l", self.mountpoint)
            self.mounted = False
        super().remove()

    def find_transport(self):
        return "in the kernel"

    def sectors_written(self):
        return int(Path(f"/sys/block/{Path(self.device).name}/stat").read_text().split()[6])

    def written_bytes(self):
        return (self.sectors_written() - self.written_before) * 512


class Host(Peer):
    """The directory itself, without anything between: what the file system below would do."""

    def mount(self):
        self.mountpoint.mkdir(exist_ok=True)

    def unmount(self):
        pass


class NullFuse(Peer):
    """What FUSE costs when the file system does nothing. Its data are zeros, so nothing that reads back what it wrote
    can run on it, and it forgets its names with its mount."""

    unfit = {"fsync": KEEPS_NOTHING, "tree": KEEPS_NOTHING}
    can_remount = False
    keeps_data = False

    def missing(self):
        try:
            self.bench.built("tarnfs_bench_nullfs")
        except BenchError as error:
            return f"it cannot be built: {error}"
        return None

    def mount(self):
        binary = self.bench.built("tarnfs_bench_nullfs")
        self.start([binary, "-f", "-o", "allow_other,default_permissions", self.mountpoint])


class Passthrough(Peer):
    """libfuse's example on a directory of the file system below. Its program or its source is looked for where
    TARNFS_BENCH_PASSTHROUGH says, then its source among the examples that packaging/libfuse/build kept, then among
    those of libfuse3-dev."""

    unfit = {"scale": HOLDS_FILES_OPEN}

    def places(self):
        return [Path(p) for p in os.environ.get("TARNFS_BENCH_PASSTHROUGH", "").split(os.pathsep) if p]

    def built_elsewhere(self):
        return next((p / self.name for p in self.places() if os.access(p / self.name, os.X_OK)), None)

    def source(self):
        for place in [*self.places(), *EXAMPLES]:
            for suffix in ("c", "cc"):
                if (place / f"{self.name}.{suffix}").exists():
                    return place / f"{self.name}.{suffix}"
        return None

    def missing(self):
        if self.source() is None and self.built_elsewhere() is None:
            looked = " or ".join(str(place) for place in EXAMPLES)
            return f"no source of {self.name} in {looked}; TARNFS_BENCH_PASSTHROUGH can name a directory that has it"
        try:
            self.binary()
        except BenchError as error:
            return f"it cannot be built: {error}"
        return None

    def binary(self):
        target = self.built_elsewhere() or self.bench.directory / f"{self.name}.program"
        if not target.exists():
            source = self.source()
            plain_c = source.suffix == ".c"
            compiler = os.environ.get("CC", "cc") if plain_c else os.environ.get("CXX", "c++")
            # passthrough_hp counts on an option parser that includes <iostream>; newer ones do not.
            language = ["-std=gnu11"] if plain_c else ["-std=c++20", "-include", "iostream"]
            # What libfuse's own build would find; older examples include it, newer ones count on the command line.
            found = self.bench.directory / "config.h"
            found.write_text("#pragma once\n" + "".join(f"#define HAVE_{name} 1\n" for name in EXAMPLES_FOUND))
            language += ["-include", found]
            command = [compiler, "-w", "-O2", "-pthread", *language, "-D_GNU_SOURCE", f"-I{self.bench.directory}"]
            run(*command, f"-I{source.parent}", source, "-o", target, *fuse_flags())
        return target

    def make(self):
        (self.directory / "below").mkdir()

    def mount(self):
        below = self.directory / "below"
        if self.name == "passthrough_ll":
            options = f"source={below},cache=always,writeback,allow_other,default_permissions"
            self.start([self.binary(), "-f", "-o", options, self.mountpoint])
            return
        said = subprocess.run([str(self.binary()), "--help"], capture_output=True, text=True, check=False)
        foreground = ["--foreground"] if "--foreground" in said.stdout + said.stderr else []
        self.start([self.binary(), *foreground, below, self.mountpoint])


class Fuse2fs(Peer):
    unfit = {"scale": SEARCHES_LINEARLY}

    def missing(self):
        return self.needs("fuse2fs", "mkfs.ext4")

    def make(self):
        self.bench.make_image(self.image)
        run(*Loop.MAKE["ext4"], self.image)

    def mount(self):
        self.start(["fuse2fs", "-f", "-o", "rw,allow_other", self.image, self.mountpoint])


class Gocryptfs(Peer):
    unfit = {"scale": CREATES_SLOWLY}

    def missing(self):
        return self.needs("gocryptfs")

    def make(self):
        (self.directory / "below").mkdir()
        (self.directory / "password").write_text("measuring\n")
        self.call("-init", "-scryptn", "10", self.directory / "below")

    def mount(self):
        # A request that comes before it is ready can hang it for good.
        command = [*self.words(), "-fg", "-allow_other", self.directory / "below", self.mountpoint]
        self.start(command, ready="mounted and ready")

    def words(self):
        return ["gocryptfs", "-passfile", self.directory / "password"]

    def call(self, *words):
        run(*self.words(), *words)


CLASSES = {
    "tarnfs": Tarnfs,
    "tarnfs-mirror": TarnfsWithMirror,
    "tarnfs-mirror-keys": TarnfsWithKeys,
    "ext4": Loop,
    "btrfs": Loop,
    "xfs": Loop,
    "nullfs": NullFuse,
    "passthrough_hp": Passthrough,
    "passthrough_ll": Passthrough,
    "fuse2fs": Fuse2fs,
    "gocryptfs": Gocryptfs,
    "host": Host,
}


def make_peers(names, variants, bench):
    """The peers of these names, then a tarnfs for each variant (name, options, binaries, mirrored)."""
    peers = [CLASSES[name](name, bench) for name in names]
    for variant in variants:
        kind = TarnfsWithMirror if variant.mirrored else Tarnfs
        peers.append(kind(variant.name, bench, variant.options, variant.binaries))
    return peers
