"""Where a run happens: namespaces, directories, mounts and daemons, and their end.

The measuring process is the first one of its own mount and process namespaces: when it ends, however it ends, the
kernel ends its daemons and takes its mounts away, and with the mounts the loop devices, which are detached as soon as
they are mounted. The process outside waits for it and removes the directory with the images.
"""

import ctypes
import json
import os
import resource
import select
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
# A process is at rest when it used less than this share of a processor for so long.
REST_SHARE = 0.02
REST_SECONDS = 0.05
INSIDE = "TARNFS_BENCH_INSIDE"
# In memory, of this run alone, and gone with its namespaces.
SCRATCH = Path("/run/tarnfs-bench")


class BenchError(Exception):
    """What failed, in one line."""


def run(*command, seconds=600, codes=(0,), environment=None):
    """Runs a command to its end and returns its standard output. `codes` are the exit codes that are no failure."""
    words = [str(word) for word in command]
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
    except OSError as error:
        raise BenchError(f"{words[0]}: {error.strerror}") from None
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        # It may hang in a file system that does not answer, and then it ends only when the connection is cut, which
        # is the peer's removal: nobody waits for it here.
        process.kill()
        raise BenchError(f"{Path(words[0]).name}: no end after {seconds} s") from None
    if process.returncode not in codes:
        said = (errors.strip() or output.strip()).splitlines()
        # A compiler's and tar's reason stands before their last words.
        told = [line for line in said if " error: " in line or ": Cannot " in line]
        reason = (told[:1] or said[-1:] or ["it said nothing"])[0]
        command = " ".join([Path(words[0]).name, *words[1:]])
        short = command if len(command) <= COMMAND_SHOWN else command[:COMMAND_SHOWN] + "..."
        raise BenchError(f"{short}: exit code {process.returncode}: {reason}")
    return output


def poll(condition, what, seconds=PATIENCE_SECONDS):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise BenchError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.002)
    return value


def wait_for_end(process, seconds):
    """Popen.wait() with a timeout looks only every 50 ms, which would count as the file system's time. Raises
    subprocess.TimeoutExpired."""
    if process.poll() is None:
        handle = os.pidfd_open(process.pid)
        try:
            select.select([handle], [], [], seconds)
        finally:
            os.close(handle)
    return process.wait(0.001)


def has_io_uring(process):
    """Whether that process has rings open."""
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        try:
            if "[io_uring]" in os.readlink(descriptor):
                return True
        except FileNotFoundError:
            continue
    return False


def cpu_seconds(process):
    """What that process has used of the processors, in user and system time, the threads that have ended included. As
    utime and stime in /proc/PID/stat, which count in steps too coarse for a process that does next to nothing."""
    clock = ctypes.c_int()
    code = ctypes.CDLL(None).clock_getcpuclockid(process, ctypes.byref(clock))
    if code != 0:
        raise BenchError(f"the processor time of process {process}: {os.strerror(code)}")
    return time.clock_gettime(clock.value)


def cpu_share(process, seconds):
    """How much of a processor that process uses from now on, for so long."""
    begun, used = time.monotonic(), cpu_seconds(process)
    time.sleep(seconds)
    return (cpu_seconds(process) - used) / (time.monotonic() - begun)


def wait_for_rest(process):
    """Until that process has nothing more to do: the kernel tells a file system which names it has forgotten without
    waiting for an answer."""
    poll(lambda: cpu_share(process, REST_SECONDS) < REST_SHARE, f"process {process} to come to rest")


def most_memory_mib(process):
    """The most that process has had in memory since it began."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(dict(line.split(":", 1) for line in lines)["VmHWM"].split()[0]) / 1024


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


def abort_connections(process, below):
    """Cuts the FUSE connections of the mounts at or below a directory, as that process sees them: a file system that
    hangs holds its callers, and itself, where no signal reaches."""
    try:
        lines = Path(f"/proc/{process}/mountinfo").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split()
        control = Path("/sys/fs/fuse/connections") / fields[2].split(":")[1] / "abort"
        if Path(fields[4]).is_relative_to(below) and after.startswith("fuse") and control.exists():
            control.write_text("1")


class Daemon:
    """A process in the foreground that serves a mount."""

    def __init__(self, name, command, mountpoint, log, ready=""):
        """`ready` is what the daemon says when requests may come; by default its mount is enough."""
        self.name = name
        self.mountpoint = mountpoint
        self.log = log
        with open(log, "ab") as output:
            self.process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        try:
            poll(lambda: self.process.poll() is not None or self.is_ready(ready), f"{name} to mount")
        except BenchError:
            self.kill()
            raise
        if self.process.poll() is not None:
            raise BenchError(f"{name} ended with {self.process.returncode}: {self.last_words()}")

    def is_ready(self, words):
        return is_mounted(self.mountpoint) and words in self.log.read_text(errors="replace")

    def last_words(self):
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def unmount(self):
        try:
            unmount(self.mountpoint)
            code = wait_for_end(self.process, PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise BenchError(f"{self.name} does not end after its unmount: {self.last_words()}") from None
        except BenchError:
            self.kill()
            raise
        if code != 0:
            raise BenchError(f"{self.name} ended with {code}: {self.last_words()}")

    def kill(self):
        abort_connections("self", self.mountpoint)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if is_mounted(self.mountpoint):
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

    def end(received, _):
        ended_by.append(received)
        children = Path(f"/proc/{inside.pid}/task/{inside.pid}/children").read_text().split()
        for child in children:
            for path in made.values():
                abort_connections(child, path)
        # unshare holds back the signals that ask; its death takes the namespaces with it.
        inside.kill()

    inside = subprocess.Popen(command, env=environment, preexec_fn=die_with_parent)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, end)
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


def raise_open_files():
    """Lets this process and its children have as many files open as they may, and returns how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Root may go beyond the hard limit only with the capability for it.
    for most in (max(hard, int(Path("/proc/sys/fs/nr_open").read_text())), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            return most
        except (OSError, ValueError):
            continue
    return soft


def prepare_inside():
    """Control sockets of other daemons on this machine are not to be seen, and ours not by others."""
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    SCRATCH.mkdir()
