"""Where a run happens: namespaces, directories, mounts and daemons, and their end.

The measuring process is the first one of its own mount and process namespaces: when it ends, however it ends, the
kernel ends its daemons and takes its mounts away, and with the mounts the loop devices, which are detached as soon as
they are mounted. The process outside waits for it and removes the directory with the images.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PATIENCE_SECONDS = 120
COMMAND_SHOWN = 100  # characters of it in a message
PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
INSIDE = "TARNFS_BENCH_INSIDE"


class BenchError(Exception):
    """What failed, in one line."""


def run(*command, seconds=600, text_input=None):
    """Runs a command to its end and returns its standard output."""
    words = [str(word) for word in command]
    try:
        result = subprocess.run(
            words, capture_output=True, text=True, timeout=seconds, check=False, input=text_input
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"{' '.join(words)}: no end after {seconds} s") from None
    except OSError as error:
        raise BenchError(f"{words[0]}: {error.strerror}") from None
    if result.returncode != 0:
        said = (result.stderr.strip() or result.stdout.strip()).splitlines()
        # A compiler's reason stands before its last words.
        reason = next((line for line in said if " error: " in line), said[-1] if said else "it said nothing")
        command = " ".join([Path(words[0]).name, *words[1:]])
        short = command if len(command) <= COMMAND_SHOWN else command[:COMMAND_SHOWN] + "..."
        raise BenchError(f"{short}: exit code {result.returncode}: {reason}")
    return result.stdout


def poll(condition, what, seconds=PATIENCE_SECONDS):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise BenchError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.002)
    return value


def is_mounted(directory):
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split()[4] == str(directory) for line in lines)


def file_system_type(directory):
    return run("stat", "-f", "-c", "%T", directory).strip()


def program(name, binaries):
    """The path of one of the project's programs in the build directory, or on PATH when there is none (None): never
    one from elsewhere than asked for. None when it is missing."""
    if binaries is None:
        return shutil.which(name)
    for candidate in (binaries / name, *sorted(binaries.glob(f"*/{name}")), *sorted(binaries.glob(f"*/*/{name}"))):
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return str(candidate)
    return None


class Daemon:
    """A process in the foreground that serves a mount, or nothing but a socket (mountpoint None)."""

    def __init__(self, name, command, mountpoint, log):
        self.name = name
        self.mountpoint = mountpoint
        self.log = log
        with open(log, "ab") as output:
            self.process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        try:
            poll(lambda: self.process.poll() is not None or is_mounted(mountpoint), f"{name} to mount")
        except BenchError:
            self.kill()
            raise
        if self.process.poll() is not None:
            raise BenchError(f"{name} ended with {self.process.returncode}: {self.last_words()}")

    def last_words(self):
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def unmount(self):
        try:
            unmount(self.mountpoint)
            code = self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise BenchError(f"{self.name} does not end after its unmount: {self.last_words()}") from None
        except BenchError:
            self.kill()
            raise
        if code != 0:
            raise BenchError(f"{self.name} ended with {code}: {self.last_words()}")

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.mountpoint is not None and is_mounted(self.mountpoint):
            run("umount", "-i", "-l", self.mountpoint)


def unmount(mountpoint):
    # The load has ended, but the kernel may still hold its last file for a moment.
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            run("umount", "-i", mountpoint)
            return
        except BenchError as error:
            if "busy" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def forget_pages():
    """Has the kernel forget what it has cached of clean files, the images' too."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def die_with_parent():
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)


def run_inside(arguments, directories):
    """Runs this program again in namespaces of its own, with a new directory below each of `directories`, which are
    removed at the end. Returns its exit code."""
    made = {str(where): tempfile.mkdtemp(prefix="tarnfs-bench-", dir=where) for where in directories}
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, *arguments]
    environment = dict(os.environ, **{INSIDE: json.dumps(made)})
    ended_by = []
    inside = subprocess.Popen(command, env=environment, preexec_fn=die_with_parent)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        # unshare holds back the signals that ask; its death takes the namespaces with it.
        signal.signal(number, lambda received, _: (ended_by.append(received), inside.kill()))
    try:
        code = inside.wait()
    finally:
        for path in made.values():
            shutil.rmtree(path, ignore_errors=True)
    return 128 + ended_by[0] if ended_by else code


def places_inside():
    """{directory given: new directory below it}, or None outside."""
    given = os.environ.get(INSIDE)
    if not given:
        return None
    return {Path(where): Path(path) for where, path in json.loads(given).items()}


def prepare_inside():
    """Control sockets of other daemons on this machine are not to be seen, and ours not by others."""
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
