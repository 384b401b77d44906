#!/usr/bin/env python3
"""Programs that ask much of a file system work on a volume, and the mirror has what they made."""

import fcntl
import mmap
import sqlite3

import harness
from harness import TarnTest, free_port, run, tarn

TRANSACTIONS = 10_000 if harness.FULL else 500
COMMITS = 200 if harness.FULL else 25


class Programs(TarnTest):
    def setUp(self):
        super().setUp()
        port = free_port()
        self.image = self.make_volume(size="4G")
        self.mirror = self.start_mirror(port)
        self.primary = self.mount(self.image, mirror=port)
        self.root = self.primary.mountpoint

    def finish(self):
        tarn("cp", "--mirror", self.root)
        self.assert_same_tree(self.root, self.mirror.mountpoint)
        self.primary.unmount()
        self.mirror.terminate()
        self.assert_clean(self.image)
        self.assert_clean(self.directory / "mirror.tarnfs")

    def run_sqlite(self, name, journal_mode):
        connection = sqlite3.connect(self.root / name, isolation_level=None)
        mode = connection.execute(f"pragma journal_mode={journal_mode}").fetchone()[0]
        self.assertEqual(mode, journal_mode)
        connection.execute("pragma synchronous=full")
        connection.execute("create table t (id integer primary key, number int, content blob)")
        connection.execute("create index i on t (number)")
        for number in range(TRANSACTIONS):
            connection.execute("begin")
            connection.execute(
                "insert into t (number, content) values (?, ?)",
                (self.random.randrange(1000), self.random.randbytes(self.random.randrange(300))),
            )
            connection.execute("update t set number = number + 1 where id = ?", (self.random.randrange(number + 1),))
            connection.execute("commit")
        self.assertEqual(connection.execute("select count(*) from t").fetchone()[0], TRANSACTIONS)
        self.assertEqual(connection.execute("pragma integrity_check").fetchone()[0], "ok")
        connection.close()
        result = run("sqlite3", self.root / name, "pragma integrity_check; select count(*) from t")
        self.assertEqual(result.stdout.split(), ["ok", str(TRANSACTIONS)])

    def test_sqlite_with_a_rollback_journal(self):
        self.run_sqlite("rollback.db", "delete")
        self.finish()

    def test_sqlite_with_a_write_ahead_log(self):
        self.run_sqlite("wal.db", "wal")
        self.finish()

    def test_git(self):
        repository = self.root / "repository"

        def git(*arguments, at=repository):
            identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "gc.auto=0"]
            return run("git", *identity, "-C", at, *arguments).stdout

        repository.mkdir()
        git("init", "-q", "-b", "main")
        for commit in range(COMMITS):
            for _ in range(20):
                path = repository / f"d{self.random.randrange(30)}" / f"f{self.random.randrange(30)}"
                path.parent.mkdir(exist_ok=True)
                with open(path, "ab") as file:
                    file.write(b"%d\n" % self.random.getrandbits(500) * self.random.randrange(1, 50))
            git("add", "-A")
            git("commit", "-q", "-m", f"commit {commit}")
        self.assertEqual(git("status", "--porcelain"), "")
        git("gc", "-q")
        git("fsck", "--full", "--strict")
        git("clone", "-q", "--no-hardlinks", repository, self.root / "clone", at=self.root)
        git("fsck", "--full", at=self.root / "clone")
        self.assertEqual(len(git("log", "--oneline", at=self.root / "clone").splitlines()), COMMITS)
        git("checkout", "-q", "HEAD~5", at=self.root / "clone")
        self.assertEqual(git("status", "--porcelain", at=self.root / "clone"), "")
        self.finish()

    def test_a_shared_mapping(self):
        path = self.root / "mapped"
        path.write_bytes(bytes(1 << 20))
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
            for offset in range(0, 1 << 20, 5000):
                mapping[offset : offset + 4] = b"%04d" % (offset // 5000)
            mapping.flush()
            for offset in range(0, 1 << 20, 5000):
                self.assertEqual(path.read_bytes()[offset : offset + 4], b"%04d" % (offset // 5000))
        self.finish()

    def test_locks(self):
        path = self.root / "locked"
        with open(path, "wb") as holder:
            fcntl.flock(holder, fcntl.LOCK_EX)
            self.assertNotEqual(run("flock", "-n", path, "true", expect=None).returncode, 0)
        run("flock", "-n", path, "true")
        self.finish()


if __name__ == "__main__":
    harness.main()
