"""Pairs of files that must agree: what shows that every state of the mirror is one point in time of the primary.

The rule. A writer stores the counter n in A and, when that has returned, in B; then n + 1, and so on. Each store
reaches the file system before it returns (direct writes, attributes and names do; buffered writes would wait in the
kernel's page cache, whose order is the kernel's). So at each point in time the primary holds (A, B) = (n, n) or
(n, n - 1), and so does every consistency point, because it is one point in time: nothing of an operation that came
later, everything of those that came before.

A reader at the mirror reads A, then B, then A again: a, b, a'. The mirror shows states in the order of their cps, so
the three reads come from states i <= j <= k, and the counter only grows: a <= A in state j <= a'. With the rule for
state j:

    a - 1 <= b <= a',   and when a == a' (nothing moved between):   b == a  or  b == a - 1

Each change of a from one read to the next is another published state.
"""

import errno
import mmap
import os
import threading


class DirectData:
    """The counter is the content of two files, written past the page cache."""

    def __init__(self, directory):
        self.paths = [directory / "A", directory / "B"]
        self.page = mmap.mmap(-1, 4096)

    def prepare(self):
        self.descriptors = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT) for path in self.paths]

    def store(self, which, counter):
        self.page[:20] = b"%020d" % counter
        os.pwrite(self.descriptors[which], self.page, 0)

    def load(self, which):
        with open(self.paths[which], "rb", buffering=0) as file:
            return int(file.read(20))

    def finish(self):
        for descriptor in getattr(self, "descriptors", []):
            os.close(descriptor)


class DirectReads(DirectData):
    """The same, read past the page cache too, from files that stay open."""

    def load(self, which):
        if not hasattr(self, "readers"):
            self.readers = [os.open(path, os.O_RDONLY | os.O_DIRECT) for path in self.paths]
        os.preadv(self.readers[which], [self.page], 0)
        return int(self.page[:20])

    def finish(self):
        for descriptor in getattr(self, "readers", getattr(self, "descriptors", [])):
            os.close(descriptor)


class Attributes:
    """The counter is an extended attribute of two files."""

    def __init__(self, directory):
        self.paths = [directory / "A", directory / "B"]

    def prepare(self):
        for path in self.paths:
            path.touch()

    def store(self, which, counter):
        os.setxattr(self.paths[which], "user.counter", b"%d" % counter)

    def load(self, which):
        return int(os.getxattr(self.paths[which], "user.counter"))

    def finish(self):
        pass


class Names:
    """The counter is the target of a symbolic link in each of two directories, replaced by rename."""

    def __init__(self, directory):
        self.directories = [directory / "a", directory / "b"]

    def prepare(self):
        for directory in self.directories:
            directory.mkdir()

    def store(self, which, counter):
        os.symlink(str(counter), self.directories[which] / "new")
        os.rename(self.directories[which] / "new", self.directories[which] / "current")

    def load(self, which):
        # What was replaced between the lookup of its name and its use is gone with its state: ESTALE, as over NFS.
        for _ in range(100):
            try:
                return int(os.readlink(self.directories[which] / "current"))
            except OSError as error:
                if error.errno != errno.ESTALE:
                    raise
        raise AssertionError(f"{self.directories[which]}/current was stale 100 times in a row")

    def finish(self):
        pass


class PairWatch:
    """Writes pairs at the primary and reads them at the mirror, each in its thread, until stop()."""

    def __init__(self, kind, primary_root, mirror_root, publish, take_point=None):
        """`publish` is called when the first pair is written, and returns when the mirror has published it.
        `take_point` takes a consistency point; without it the watch relies on those that other work causes."""
        self.stopping = threading.Event()
        self.failures = []
        self.states_seen = 0
        self.reads_undisturbed = 0
        self.writer = kind(primary_root)
        self.writer.prepare()
        for which in (0, 1):
            self.writer.store(which, 0)
        publish()
        self.reader = kind(mirror_root)
        self.take_point = take_point
        self.threads = []

    def start(self):
        works = [self.write, self.read] + ([self.take_consistency_points] if self.take_point else [])
        self.threads = [threading.Thread(target=self.guarded, args=(work,)) for work in works]
        for thread in self.threads:
            thread.start()

    def stop(self):
        """Ends the threads and raises what went wrong in them."""
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        self.writer.finish()
        self.reader.finish()
        if self.failures:
            raise self.failures[0]

    def guarded(self, work):
        try:
            work()
        except BaseException as error:  # stop() raises it in the test's own thread
            self.failures.append(error)
            self.stopping.set()

    def write(self):
        counter = 0
        while not self.stopping.is_set():
            counter += 1
            self.writer.store(0, counter)
            self.writer.store(1, counter)

    def take_consistency_points(self):
        # At moments that have nothing to do with the writer's.
        while not self.stopping.is_set():
            self.take_point()

    def read(self):
        last = -1
        while not self.stopping.is_set():
            first, other, second = self.reader.load(0), self.reader.load(1), self.reader.load(0)
            seen = f"A was {last}; then A, B, A were {first}, {other}, {second}"
            if not last <= first <= second:
                raise AssertionError(f"the mirror went back in time: {seen}")
            if other < first - 1:
                raise AssertionError(f"B is older than A allows: {seen}")
            if other > second:
                raise AssertionError(f"B is newer than A allows: {seen}")
            self.reads_undisturbed += first == second
            self.states_seen += first != last
            last = second
