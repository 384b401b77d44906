#!/usr/bin/env python3
"""Programs that read the mirror's mount while it moves: find, tar, a compiler, readers of mapped files. They see no
error and no mixed state, every state is seen when `tarn cp --mirror` has returned, and what does not change costs no
request.
"""

import mmap
import os
import subprocess
import threading
import time

import harness
import pairs
from harness import TarnTest, free_port, run, tarn

PUBLISHES = 500 if harness.FULL else 30
STATS = 200_000 if harness.FULL else 20_000

SOURCE = """\
#include "include/A.h"
#include "include/B.h"
#include "include/many.h"
_Static_assert(B + 1 >= A, "B.h is of an older state than A.h");
int main(void) { return 0; }
"""


class Headers(pairs.DirectData):
    """The counter is what two C headers define, each one block."""

    def __init__(self, directory):
        super().__init__(directory)
        self.paths = [directory / "A.h", directory / "B.h"]

    def store(self, which, counter):
        self.page[:] = (b"#define %s %d\n" % (b"AB"[which : which + 1], counter)).ljust(4096, b"\n")
        os.pwrite(self.descriptors[which], self.page, 0)


class MappedData(pairs.DirectData):
    """Read from mappings that stay."""

    def load(self, which):
        if not hasattr(self, "mappings"):
            self.mappings = []
            for path in self.paths:
                with open(path, "rb") as file:
                    self.mappings.append(mmap.mmap(file.fileno(), 4096, access=mmap.ACCESS_READ))
        return int(self.mappings[which][:20])

    def finish(self):
        for mapping in getattr(self, "mappings", []):
            mapping.close()
        super().finish()


class MirrorReading(TarnTest):
    def setUp(self):
        super().setUp()
        port = free_port()
        self.mirror = self.start_mirror(port)
        self.primary = self.mount(self.make_volume(), mirror=port)
        self.source, self.copy = self.primary.mountpoint, self.mirror.mountpoint
        self.stopping = threading.Event()
        self.failures = []

    def publish(self):
        tarn("cp", "--mirror", self.source)

    def mirror_status(self):
        return self.mirror.status()

    def run_until_stopped(self, work):
        """Runs work() again and again in a thread, and keeps what goes wrong."""
        counts = [0]

        def loop():
            try:
                while not self.stopping.is_set():
                    work()
                    counts[0] += 1
            except BaseException as error:
                self.failures.append(error)

        thread = threading.Thread(target=loop)
        thread.start()
        return thread, counts

    def find(self):
        result = run("find", self.copy / "tree", "-type", "f", "-size", "+0", "-newermt", "1990-01-01", "-print")
        self.assertEqual(result.stderr, "")
        self.assertGreaterEqual(len(result.stdout.splitlines()), 300)

    def tar(self):
        command = f"tar -C {self.copy} -cf - tree | cat > {self.directory}/archive"
        result = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, timeout=300)
        # tar looks whether a file's time has changed while it read it, which says that tar saw both states.
        errors = [line for line in result.stderr.splitlines() if not line.endswith("file changed as we read it")]
        self.assertEqual(errors, [])

    def compile(self):
        result = subprocess.run(
            ["cc", "-c", "-o", self.directory / "main.o", self.copy / "tree" / "main.c"],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        self.assertEqual((result.returncode, result.stderr), (0, ""))

    def build_tree(self):
        tree = self.source / "tree"
        (tree / "include").mkdir(parents=True)
        (tree / "main.c").write_text(SOURCE)
        (tree / "include" / "many.h").write_text("\n".join(f'#include "many{i}.h"' for i in range(40)) + "\n")
        for i in range(40):
            (tree / "include" / f"many{i}.h").write_text(f"#define MANY{i} {i}\n" * 50)
        for i in range(260):
            directory = tree / f"directory-{i % 13}"
            directory.mkdir(exist_ok=True)
            (directory / f"file-{i}").write_bytes(self.random.randbytes(self.random.choice((1, 5000, 100_000))))
        self.headers = Headers(tree / "include")
        self.mapped = MappedData(self.source)
        for pair in (self.headers, self.mapped):
            pair.prepare()
        return tree

    def change(self, tree, number):
        """What a state changes: content inside files, names that come, go and move, and the pairs."""
        for pair in (self.headers, self.mapped):
            for which in (0, 1):
                pair.store(which, number)
        for _ in range(5):
            i = self.random.randrange(260)
            with open(tree / f"directory-{i % 13}" / f"file-{i}", "r+b") as file:
                file.seek(self.random.randrange(4000))
                file.write(self.random.randbytes(100))
        directory = self.source / "names"
        directory.mkdir(exist_ok=True)
        (directory / f"new-{number}").write_text(str(number))
        if number >= 2:
            os.unlink(directory / f"moved-{number - 2}")
        if number >= 1:
            os.rename(directory / f"new-{number - 1}", directory / f"moved-{number - 1}")

    def check_seen(self, number):
        directory = self.copy / "names"
        names = {f"new-{number}"} | ({f"moved-{number - 1}"} if number >= 1 else set())
        self.assertEqual(set(os.listdir(directory)), names)
        self.assertEqual((directory / f"new-{number}").read_text(), str(number))
        self.assertFalse((directory / f"new-{number + 1}").exists())
        self.assertFalse((directory / f"moved-{number}").exists())
        for which in (0, 1):
            self.assertEqual(self.seen.load(which), number)
        self.assertIn(f"B {number}\n", (self.copy / "tree" / "include" / "B.h").read_text())

    def test_programs_run_on_while_the_mirror_moves(self):
        tree = self.build_tree()
        self.change(tree, 0)
        self.publish()
        self.seen = MappedData(self.copy)
        watched = MappedData(self.copy)
        last = [0]

        def watch():
            first, other, second = watched.load(0), watched.load(1), watched.load(0)
            if not (last[0] <= first <= second and first - 1 <= other <= second):
                raise AssertionError(f"A was {last[0]}; then A, B, A were {first}, {other}, {second}")
            last[0] = second

        works = (self.find, self.tar, self.compile, watch)
        threads = [self.run_until_stopped(work) for work in works]
        try:
            for number in range(1, PUBLISHES + 1):
                self.change(tree, number)
                self.publish()
                self.check_seen(number)
                if self.failures:
                    break
        finally:
            self.stopping.set()
            for thread, _ in threads:
                thread.join()
            for pair in (self.headers, self.mapped, self.seen, watched):
                pair.finish()
        if self.failures:
            raise self.failures[0]
        done = {work.__name__: counts[0] for work, (_, counts) in zip(works, threads)}
        print(f"{PUBLISHES} states, meanwhile {done}", flush=True)
        for name, count in done.items():
            self.assertGreater(count, 0, name)
        self.assertEqual(self.mirror_status()["kernel_late_count"], 0)
        self.assertEqual(self.mirror_status()["errors"], 0)
        self.assert_same_tree(self.source, self.copy)

    def rate(self, path):
        """By this process's own time: others may be busy too."""
        began = time.process_time()
        for _ in range(STATS):
            os.stat(path)
        return STATS / (time.process_time() - began)

    def test_what_does_not_change_costs_no_request(self):
        directory = self.source / "a" / "b" / "c"
        directory.mkdir(parents=True)
        (directory / "file").write_bytes(b"x" * 100_000)
        (self.source / "other").touch()
        self.publish()
        path = self.copy / "a" / "b" / "c" / "file"
        missing = path.with_name("missing")
        os.stat(path)
        self.assertFalse(missing.exists())
        self.assertEqual(path.read_bytes(), b"x" * 100_000)
        path.read_bytes()  # where it ends was asked for once more
        asked = self.mirror_status()["kernel_asked_count"]
        here = self.rate(path)
        missing.exists()
        path.read_bytes()
        self.assertEqual(self.mirror_status()["kernel_asked_count"], asked)
        # Another file's change takes nothing of it away.
        (self.source / "other").write_text("changed")
        self.publish()
        os.stat(path)
        missing.exists()
        path.read_bytes()
        self.assertEqual(self.mirror_status()["kernel_asked_count"], asked)
        memory = self.directory / "tmpfs"
        memory.mkdir()
        run("mount", "-t", "tmpfs", "tmpfs", memory)
        try:
            (memory / "a" / "b" / "c").mkdir(parents=True)
            (memory / "a" / "b" / "c" / "file").touch()
            there = self.rate(memory / "a" / "b" / "c" / "file")
        finally:
            run("umount", memory)
        print(f"stat: {here:.0f} a second at the mirror, {there:.0f} on tmpfs, {here / there:.2f} of it", flush=True)


if __name__ == "__main__":
    harness.main()
