#!/usr/bin/env python3
"""Every state that the mirror shows is one point in time of the primary.

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

import mmap
import os
import threading
import time

import harness
from harness import TarnTest, free_port, tarn

STATES_SEEN_MIN = 2000 if harness.FULL else 300
SECONDS_MAX = 600 if harness.FULL else 120


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
        for descriptor in self.descriptors:
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
        return int(os.readlink(self.directories[which] / "current"))

    def finish(self):
        pass


class Consistency(TarnTest):
    def watch(self, kind):
        port = free_port()
        image = self.make_volume(size="1G")
        mirror = self.start_mirror(port)
        primary = self.mount(image, mirror=port)
        writer = kind(primary.mountpoint)
        writer.prepare()
        for which in (0, 1):
            writer.store(which, 0)
        tarn("cp", "--mirror", primary.mountpoint)
        stop = threading.Event()
        failures = []

        def guarded(function):
            try:
                function()
            except BaseException as error:  # handed to the test's own thread
                failures.append(error)
                stop.set()

        def write():
            counter = 0
            while not stop.is_set():
                counter += 1
                writer.store(0, counter)
                writer.store(1, counter)

        def take_consistency_points():
            # At moments that have nothing to do with the writer's.
            with open(primary.mountpoint / "tick", "wb", buffering=0) as file:
                while not stop.is_set():
                    os.pwrite(file.fileno(), os.urandom(8), 0)
                    os.fsync(file.fileno())

        threads = [threading.Thread(target=guarded, args=(work,)) for work in (write, take_consistency_points)]
        for thread in threads:
            thread.start()
        try:
            seen = self.read_states(kind(mirror.mountpoint), stop)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
            writer.finish()
        if failures:
            raise failures[0]
        self.assertGreaterEqual(seen, STATES_SEEN_MIN)
        tarn("cp", "--mirror", primary.mountpoint)
        self.assert_same_tree(primary.mountpoint, mirror.mountpoint)

    def read_states(self, reader, stop):
        """Reads A, B, A until enough states were seen; returns how many."""
        seen, last, undisturbed = 0, -1, 0
        deadline = time.monotonic() + SECONDS_MAX
        while seen < STATES_SEEN_MIN and not stop.is_set() and time.monotonic() < deadline:
            first, other, second = reader.load(0), reader.load(1), reader.load(0)
            self.assertLessEqual(last, first, "the mirror went back in time")
            self.assertLessEqual(first, second, "the mirror went back in time")
            self.assertLessEqual(first - 1, other, f"B is older than A allows: {first}, {other}, {second}")
            self.assertLessEqual(other, second, f"B is newer than A allows: {first}, {other}, {second}")
            undisturbed += first == second
            seen += first != last
            last = second
        self.assertGreater(undisturbed, 0)
        reader.finish()
        return seen

    def test_content_read_through_the_page_cache(self):
        self.watch(DirectData)

    def test_content_read_directly_from_files_that_stay_open(self):
        self.watch(DirectReads)

    def test_attributes(self):
        self.watch(Attributes)

    def test_names(self):
        self.watch(Names)


if __name__ == "__main__":
    harness.main()
