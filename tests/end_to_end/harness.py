"""What the end-to-end tests share: daemons on loopback ports and temporary directories, and their removal.

A test file ends with `harness.main(Class, ...)`. That re-executes it as the first process of new mount and process
namespaces: whatever happens to the test, no daemon and no mount outlives it. Nothing here waits for a fixed time:
conditions are polled until they hold or a deadline has passed.

Environment: TARNFS_BIN the build directory with the programs; TARNFS_TEST_FULL=1 for full sizes; TARNFS_TEST_SEED the
seed of the random tests.
"""

import errno
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

SKIPPED = 77
FULL = os.environ.get("TARNFS_TEST_FULL", "") not in ("", "0")
SEED = int(os.environ.get("TARNFS_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
TOP = Path(__file__).resolve().parents[2]
# A sanitizer makes the programs slower, and so do two tests that share two cores.
PATIENCE_SECONDS = 60


def program(name):
    """The path of one of the programs in the build directory."""
    build = Path(os.environ.get("TARNFS_BIN", TOP / "build" / "release"))
    for candidate in sorted(build.rglob(name)):
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return str(candidate)
    raise FileNotFoundError(f"no program {name} below {build}; build it, or set TARNFS_BIN")


def poll(condition, what, seconds=PATIENCE_SECONDS):
    """Waits until condition() is true and returns its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for: {what}")
        time.sleep(0.005)


def run(*command, expect=0, seconds=300, **options):
    """Runs a command and returns its result; fails unless its exit code is as expected (None: any)."""
    result = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=seconds, check=False, **options
    )
    if expect is not None and result.returncode != expect:
        raise AssertionError(
            f"{' '.join(map(str, command))}: exit code {result.returncode}, expected {expect}\n"
            f"{result.stdout[-4000:]}{result.stderr[-4000:]}"
        )
    return result


def tarn(*arguments, expect=0, seconds=120):
    return run(program("tarn"), *arguments, expect=expect, seconds=seconds)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def errno_as_user(user, act):
    """The errno of act() in a process of an ordinary user; 0 when it succeeds."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            act()
            os._exit(0)
        except OSError as error:
            os._exit(error.errno)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def mount_entry(directory):
    """(connection number, type, source) of what is mounted on the directory, or None. Does not touch the mount."""
    found = None
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if fields[4] == str(directory):
            kind, source = after.split()[:2]
            major, minor = map(int, fields[2].split(":"))
            found = (str(major << 20 | minor), kind, source)
    return found


def detach(directory):
    """Ends a mount whose daemon is dead or hangs."""
    while (entry := mount_entry(directory)) is not None:
        abort = Path("/sys/fs/fuse/connections") / entry[0] / "abort"
        if entry[1].startswith("fuse") and abort.exists():
            abort.write_text("1")
        run("umount", "-i", "-l", directory, expect=None)


class Daemon:
    """A daemon of ours in the foreground, with a mountpoint and a log."""

    def __init__(self, name, command, mountpoint, log, started=True):
        self.name = name
        self.mountpoint = mountpoint
        self.log = log
        with open(log, "ab") as output:
            self.log_start = output.tell()  # others may have written to it before
            self.process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self.wait_until_mounted()
        if started:
            self.wait_until_started()

    def wait_until_mounted(self):
        poll(lambda: self.process.poll() is not None or mount_entry(self.mountpoint), f"{self.name} to mount")
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.process.returncode}: {self.log_text()}")

    def wait_until_started(self):
        """A daemon that has just mounted still has to do with its mount, which is busy meanwhile."""
        last_words = (f" on {self.mountpoint}, transport ", " listens on ")
        poll(
            lambda: self.process.poll() is not None or any(words in self.new_log_text() for words in last_words),
            f"{self.name} to start",
        )

    def new_log_text(self):
        return self.log.read_bytes()[self.log_start :].decode(errors="replace")

    def log_text(self):
        return self.log.read_text(errors="replace")[-4000:]

    def status(self):
        return json.loads(tarn("status", "--json", self.mountpoint).stdout)

    def wait(self, expect=0):
        try:
            code = self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} does not end: {self.log_text()}") from None
        if expect is not None and code != expect:
            raise AssertionError(f"{self.name} ended with {code}, expected {expect}: {self.log_text()}")

    def unmount(self):
        """umount(8), and the end of the daemon."""
        run("umount", "-i", self.mountpoint)
        self.wait()

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)
        self.wait()

    def kill(self):
        """kill -9 and the removal of the dead mount."""
        self.process.kill()
        try:
            self.wait(expect=None)
        finally:
            detach(self.mountpoint)


class TarnTest(unittest.TestCase):
    """A test with a temporary directory and daemons in it."""

    def setUp(self):
        self.directory = Path(tempfile.mkdtemp(prefix="tarnfs-test-"))
        self.random = random.Random(SEED)
        self.daemons = []
        self.addCleanup(self.clean_up)

    def clean_up(self):
        for daemon in self.daemons:
            if daemon.process.poll() is None:
                daemon.process.kill()
            detach(daemon.mountpoint)
            daemon.process.wait()
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            if line.split()[4].startswith(f"{self.directory}/"):
                detach(Path(line.split()[4]))
        shutil.rmtree(self.directory, ignore_errors=True)

    def make_directory(self, name):
        path = self.directory / name
        path.mkdir(exist_ok=True)
        return path

    def make_volume(self, name="volume.tarnfs", size="1G"):
        image = self.directory / name
        run(program("mkfs.tarnfs"), "-s", size, image)
        return image

    def loop_device(self, image):
        made = run("losetup", "--find", "--show", image, expect=None)
        if made.returncode != 0:
            self.skipTest("no loop devices here")
        device = Path(made.stdout.strip())
        self.addCleanup(run, "losetup", "--detach", device)
        return device

    def mount(self, image, name="mount", options="", mirror=None, started=True):
        """Mounts an image; `mirror` is a port. Returns when the daemon has started, or else when there is the mount."""
        transport = os.environ.get("TARNFS_TEST_IO_URING", "auto")
        words = [f"io_uring={transport}", options, f"mirror=tcp://127.0.0.1:{mirror}" if mirror else ""]
        words = [word for word in words if word]
        command = [program("tarnfs"), "-f", "-o", ",".join(words), image]
        mountpoint = self.make_directory(name)
        return self.start(f"tarnfs {image.name}", [*command, mountpoint], mountpoint, started)

    def start_mirror(self, port, name="mirror"):
        mountpoint = self.make_directory(name)
        command = [program("tarn-mirrord"), "-f", "--listen", f"tcp://127.0.0.1:{port}"]
        command += ["--image", self.directory / f"{name}.tarnfs", "--mount", mountpoint]
        return self.start("tarn-mirrord", command, mountpoint)

    def start(self, name, command, mountpoint, started=True):
        log = self.directory / f"{mountpoint.name}.log"
        daemon = Daemon(name, command, mountpoint, log, started)
        self.daemons.append(daemon)
        return daemon

    def assert_errno(self, number, function, *arguments, **options):
        with self.assertRaises(OSError) as caught:
            function(*arguments, **options)
        self.assertEqual(errno.errorcode[caught.exception.errno], errno.errorcode[number])

    def assert_clean(self, image):
        run(program("fsck.tarnfs"), "-n", image)

    def assert_same_tree(self, one, other):
        """Equal names, content, modes, owners, times, hard links, xattrs and ACLs, by rsync's judgement."""
        result = run(
            "rsync", "-aHAXn", "--delete", "--checksum", "--itemize-changes", f"{one}/", f"{other}/", seconds=900
        )
        self.assertEqual(result.stdout, "", "the two trees differ")

    def assert_one_line_error(self, result, *words):
        """A clear error: one line on standard error with every one of the words in it."""
        lines = result.stderr.strip().splitlines()
        self.assertEqual(len(lines), 1, f"one line expected on standard error: {result.stderr!r}")
        for word in words:
            self.assertIn(str(word), lines[0])


def enter_namespaces():
    """Makes this process the first one of its own mount and process namespaces."""
    if os.environ.get("TARNFS_TEST_INSIDE"):
        return
    os.environ["TARNFS_TEST_INSIDE"] = "1"
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
        os.execvp("unshare", [*command, sys.executable, *sys.argv])


def prepare_namespaces():
    """Enters them, and hides what others have on this machine."""
    enter_namespaces()
    if os.getpid() == 1:
        # Control sockets of other tests, and of other daemons on this machine, are not to be seen.
        run("mount", "-t", "tmpfs", "tmpfs", "/run")
    if not any(Path("/sys/fs/fuse/connections").glob("*")):
        run("mount", "-t", "fusectl", "fusectl", "/sys/fs/fuse/connections", expect=None)


def main():
    if not Path("/dev/fuse").exists():
        print("skipped: there is no /dev/fuse here")
        sys.exit(SKIPPED)
    if os.geteuid() != 0:
        print("these tests mount, make device files and change owners: run them as root", file=sys.stderr)
        sys.exit(1)
    prepare_namespaces()
    print(f"seed {SEED}, {'full' if FULL else 'default'} size (TARNFS_TEST_SEED, TARNFS_TEST_FULL)", flush=True)
    unittest.main(module="__main__", verbosity=2, argv=sys.argv)
