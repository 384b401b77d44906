#!/usr/bin/env python3
"""PostgreSQL on a mirrored volume, with checksums: pgbench, a kill -9 of the server and one of the file system.

After each kill the server recovers, everything that it had acknowledged is there, and its own checks find nothing.
TARNFS_TEST_PGBENCH_SECONDS is how long pgbench runs undisturbed (300). Only at full size.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import harness
from harness import TarnTest, free_port, poll, run, tarn

BENCH_SECONDS = int(os.environ.get("TARNFS_TEST_PGBENCH_SECONDS", "300"))
# What must have been acknowledged before a kill: enough for checkpoints and consistency points to have happened.
ACKNOWLEDGED_MIN = 2000
USER = "postgres"
SCALE = 10


def programs():
    """Debian has them outside of PATH, in a directory for each version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    return found[-1] if found else None


def processes_below(parent):
    """The process and all its descendants."""
    found, children = [parent], {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        children.setdefault(int(words[1]), []).append(int(path.parent.name))
    for process in found:
        found += children.get(process, [])
    return found


class Server:
    """A server on a data directory in the volume, which listens on a socket outside of it."""

    def __init__(self, test, data):
        self.data = data
        self.sockets = test.sockets
        self.log = test.directory / "server.log"
        options = ["-D", data, "-k", self.sockets, "-c", "listen_addresses=", "-c", "max_wal_size=128MB"]
        options += ["-c", "checkpoint_timeout=30s"]
        with open(self.log, "ab") as output:
            self.process = subprocess.Popen(
                as_user(programs() / "postgres", *options), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        poll(lambda: self.process.poll() is not None or self.is_ready(), "the server to be ready", seconds=300)
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended: {self.log.read_text()[-4000:]}")

    def is_ready(self):
        return run(programs() / "pg_isready", "-q", "-h", self.sockets, expect=None).returncode == 0

    def command(self, name, *arguments):
        return as_user(programs() / name, "-h", self.sockets, *arguments)

    def ask(self, statement):
        words = self.command("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement, USER)
        return run(*words, seconds=900).stdout.strip()

    def stop(self):
        self.process.send_signal(signal.SIGINT)  # it ends all sessions and writes a checkpoint
        if self.process.wait(300) != 0:
            raise AssertionError(f"the server ended with {self.process.returncode}: {self.log.read_text()[-4000:]}")

    def kill(self):
        # All of its processes at once: none gets to know of the others' end.
        self.process.send_signal(signal.SIGSTOP)
        for process in processes_below(self.process.pid):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()


def as_user(*words):
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", "env", "-C", "/", *map(str, words)]


class Writer(threading.Thread):
    """Inserts one number after the other, each in a transaction of its own, and notes what was acknowledged."""

    def __init__(self, server, first):
        super().__init__()
        self.next = self.first = first
        self.acknowledged = first - 1
        command = server.command("psql", "-X", "-q", "-A", "-t", USER)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.start()

    def run(self):
        try:
            while True:
                self.process.stdin.write(f"insert into promised values ({self.next}) returning number;\n")
                self.process.stdin.flush()
                if self.process.stdout.readline().strip() != str(self.next):
                    return  # the server has gone
                self.acknowledged = self.next
                self.next += 1
        except BrokenPipeError:
            pass  # so has psql
        finally:
            self.process.kill()
            try:
                self.process.communicate()
            except BrokenPipeError:
                pass  # what was not sent is not to be


class Database(TarnTest):
    def setUp(self):
        super().setUp()
        os.chmod(self.directory, 0o755)  # the server's user goes through it
        self.port = free_port()
        self.image = self.make_volume(size="8G")
        self.mirror = self.start_mirror(self.port)
        self.mount_primary()
        self.sockets = self.make_directory("sockets")
        shutil.chown(self.sockets, USER)
        self.promised_before = 0

    def mount_primary(self):
        self.primary = self.mount(self.image, options="allow_other", mirror=self.port)

    def start_server(self):
        server = Server(self, self.data)
        # When the test fails the server goes before its file system does.
        self.addCleanup(lambda: server.process.poll() is None and server.kill())
        return server

    def test_what_was_committed_is_there_after_each_kill(self):
        self.data = self.primary.mountpoint / "data"
        self.data.mkdir(mode=0o700)
        shutil.chown(self.data, USER, USER)
        run(*as_user(programs() / "initdb", "--data-checksums", "--auth=trust", "-D", self.data))
        self.server = self.start_server()
        self.server.ask("create extension amcheck")
        self.server.ask("create table promised (number int primary key)")
        run(*self.server.command("pgbench", "-q", "-i", "-s", SCALE, USER))
        self.run_undisturbed()
        self.run_into(self.kill_server)
        self.run_into(self.kill_file_system)
        self.finish()

    def run_undisturbed(self):
        words = self.server.command("pgbench", "-c", 8, "-j", 2, "-T", BENCH_SECONDS, USER)
        text = run(*words, seconds=BENCH_SECONDS + 300).stdout
        print(text, flush=True)
        counts = (re.search(rf"{what}: (\d+)", text) for what in ("processed", "failed transactions"))
        done, failed = (int(count.group(1)) for count in counts)
        self.assertEqual(failed, 0)
        self.assertEqual(self.server.ask("select count(*) from pgbench_history"), str(done))
        self.check()

    def run_into(self, kill):
        """Two writers and pgbench at full speed, until everything is killed."""
        writers = [Writer(self.server, first) for first in (self.promised_before + 1, self.promised_before + 1_000_001)]
        self.promised_before += 2_000_000
        bench = subprocess.Popen(
            self.server.command("pgbench", "-n", "-c", 8, "-j", 2, "-T", 3600, USER),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        enough = ACKNOWLEDGED_MIN + self.random.randrange(ACKNOWLEDGED_MIN)
        poll(
            lambda: all(w.acknowledged - w.first > enough for w in writers) or not any(w.is_alive() for w in writers),
            "enough transactions",
            seconds=600,
        )
        kill()
        bench.wait(60)
        for writer in writers:
            writer.join()
        self.server = self.start_server()
        self.assertIn("automatic recovery in progress", self.server.log.read_text())
        self.server.log.write_text("")
        for writer in writers:
            promised = f"{writer.acknowledged - writer.first + 1} transactions were acknowledged before {kill.__name__}"
            print(promised, flush=True)
            self.assertGreater(writer.acknowledged - writer.first, ACKNOWLEDGED_MIN)
            numbers = f"number between {writer.first} and {writer.next}"
            found = int(self.server.ask(f"select count(*) from promised where {numbers}"))
            # The one that was on its way may be there or not.
            self.assertIn(writer.first + found - 1, (writer.acknowledged, writer.next), promised)
        self.check()

    def kill_server(self):
        self.server.kill()

    def kill_file_system(self):
        self.primary.process.kill()
        self.primary.wait(expect=None)
        self.server.kill()
        harness.detach(self.primary.mountpoint)
        self.assert_clean(self.image)
        self.mount_primary()

    def check(self):
        """Sums that each transaction of pgbench keeps equal, and every index and table by amcheck."""
        sums = [
            self.server.ask(f"select coalesce(sum({column}), 0) from pgbench_{table}")
            for table, column in (
                *(("accounts", "abalance"), ("tellers", "tbalance")),
                *(("branches", "bbalance"), ("history", "delta")),
            )
        ]
        self.assertEqual(len(set(sums)), 1, f"balances differ: {sums}")
        run(*self.server.command("pg_amcheck", "--heapallindexed", "--parent-check", USER), seconds=900)

    def finish(self):
        self.server.stop()
        result = run(*as_user(programs() / "pg_checksums", "--check", "-D", self.data), seconds=900)
        print(result.stdout, flush=True)
        self.assertRegex(result.stdout, r"Bad checksums:\s+0\n")
        tarn("cp", "--mirror", self.primary.mountpoint)
        self.assert_same_tree(self.primary.mountpoint, self.mirror.mountpoint)
        self.primary.unmount()
        self.mirror.terminate()
        self.assert_clean(self.image)
        self.assert_clean(self.directory / "mirror.tarnfs")


if __name__ == "__main__":
    if not harness.FULL or programs() is None:
        print("skipped: it is for the full size, and takes PostgreSQL")
        sys.exit(harness.SKIPPED)
    harness.main()
