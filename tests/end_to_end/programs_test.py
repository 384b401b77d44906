#!/usr/bin/env python3
"""Programs that ask much of a file system work on a volume, and the mirror has what they made."""

import fcntl
import mmap
import sqlite3
import subprocess
import unittest

import harness
from harness import TarnTest, free_port, run, tarn

TRANSACTIONS = 10_000 if harness.FULL else 500
COMMITS = 200 if harness.FULL else 25
IMPORTED_COMMITS = 9_700
COMMITS_ON_TOP = 300


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

    @staticmethod
    def git(at, *arguments):
        identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "gc.auto=0"]
        return run("git", *identity, "-C", at, *arguments, seconds=900).stdout

    def test_git(self):
        repository = self.root / "repository"

        def git(*arguments, at=repository):
            return self.git(at, *arguments)

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

    def commits_to_import(self):
        """A stream for git fast-import: each commit has new content for some of 2,000 files."""
        for number in range(IMPORTED_COMMITS):
            yield f"commit refs/heads/main\ncommitter Test <test@example.org> {10**9 + number} +0000\n"
            yield f"data <<end\nimported {number}\nend\n"
            for _ in range(self.random.randrange(1, 6)):
                lines = (b"%d" % self.random.getrandbits(200) for _ in range(self.random.randrange(1, 60)))
                content = b"\n".join(lines).decode()
                name = f"d{self.random.randrange(50)}/f{self.random.randrange(40)}"
                yield f"M 100644 inline {name}\ndata {len(content)}\n{content}\n"

    @unittest.skipUnless(harness.FULL, "takes minutes")
    def test_a_large_git_repository(self):
        repository, clone = self.root / "repository", self.root / "clone"
        repository.mkdir()
        self.git(repository, "init", "-q", "-b", "main")
        command = ["git", "-C", repository, "fast-import", "--quiet"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as importer:
            for words in self.commits_to_import():
                importer.stdin.write(words)
            importer.stdin.close()
            self.assertEqual(importer.wait(900), 0)
        self.git(repository, "reset", "-q", "--hard")
        files = sorted(path.relative_to(repository) for path in repository.glob("d*/f*"))
        for commit in range(COMMITS_ON_TOP):
            for path in self.random.sample(files, 5):
                with open(repository / path, "ab") as file:
                    file.write(b"\n%d" % self.random.getrandbits(5000))
            self.git(repository, "commit", "-q", "-a", "-m", f"commit {commit}")
        self.git(repository, "gc", "-q")
        self.git(repository, "fsck", "--full", "--strict")
        self.git(self.root, "clone", "-q", "--no-hardlinks", repository, clone)
        self.git(clone, "fsck", "--full", "--strict")
        for place in (repository, clone):
            commits = self.git(place, "rev-list", "--count", "HEAD").strip()
            self.assertEqual(commits, str(IMPORTED_COMMITS + COMMITS_ON_TOP))
            self.assertEqual(self.git(place, "status", "--porcelain"), "")
        self.assertEqual(self.git(repository, "rev-parse", "HEAD"), self.git(clone, "rev-parse", "HEAD"))
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
