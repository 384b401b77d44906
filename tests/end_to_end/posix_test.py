#!/usr/bin/env python3
"""The operations of a POSIX file system through a real mount, and that a remount finds everything."""

import ctypes
import errno
import os
import stat
import subprocess
import time

import harness
from harness import TarnTest, run

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE = 1, 2, 16


def call(function, *arguments):
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def renameat2(old, new, flags):
    call(LIBC.renameat2, AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags)


def fallocate(descriptor, mode, offset, length):
    call(LIBC.fallocate, descriptor, mode, ctypes.c_long(offset), ctypes.c_long(length))


class Posix(TarnTest):
    def setUp(self):
        super().setUp()
        self.image = self.make_volume(size="512M")
        self.primary = self.mount(self.image, options="dev,suid,allow_other")
        self.root = self.primary.mountpoint

    def tearDown(self):
        """Every test ends with an unmount and a check of the whole volume."""
        if self.primary.process.poll() is None:
            self.primary.unmount()
        self.assert_clean(self.image)

    def remount(self, access="rw"):
        self.primary.unmount()
        self.primary = self.mount(self.image, options=f"{access},dev,suid,allow_other")

    def test_names_of_every_kind(self):
        os.umask(0o022)
        (self.root / "file").write_text("content")
        (self.root / "directory").mkdir()
        os.mkfifo(self.root / "fifo", 0o640)
        os.mknod(self.root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(self.root / "block", stat.S_IFBLK | 0o600, os.makedev(259, 70000))
        os.mknod(self.root / "socket", stat.S_IFSOCK | 0o600)
        os.symlink("no/such/target" * 200, self.root / "long symlink")
        os.symlink("file", self.root / "symlink")
        os.link(self.root / "file", self.root / "directory" / "link")
        (self.root / "directory" / "ünïcödé \N{MOUNTAIN}\n").write_bytes(b"")
        for attempt in range(2):
            self.assertEqual((self.root / "symlink").read_text(), "content")
            self.assertEqual(os.readlink(self.root / "long symlink"), "no/such/target" * 200)
            self.assertEqual((self.root / "file").stat().st_nlink, 2)
            self.assertTrue(os.path.samefile(self.root / "file", self.root / "directory" / "link"))
            self.assertEqual(self.root.stat().st_nlink, 3)
            self.assertEqual(os.stat(self.root / "null").st_rdev, os.makedev(1, 3))
            self.assertEqual(os.stat(self.root / "block").st_rdev, os.makedev(259, 70000))
            kinds = {name: stat.S_IFMT(os.lstat(self.root / name).st_mode) for name in os.listdir(self.root)}
            self.assertEqual(kinds["fifo"], stat.S_IFIFO)
            self.assertEqual(kinds["socket"], stat.S_IFSOCK)
            self.assertEqual(len(kinds), 8)
            self.assertEqual(len(os.listdir(self.root / "directory")), 2)
            with open(self.root / "null", "rb") as null:
                self.assertEqual(null.read(), b"")
            if attempt == 0:
                self.remount()

    def test_errors_of_names(self):
        (self.root / "d" / "e").mkdir(parents=True)
        (self.root / "f").touch()
        self.assert_errno(errno.ENOTEMPTY, os.rmdir, self.root / "d")
        self.assert_errno(errno.ENOTDIR, os.rmdir, self.root / "f")
        self.assert_errno(errno.EISDIR, os.unlink, self.root / "d")
        self.assert_errno(errno.EEXIST, os.mkdir, self.root / "f")
        self.assert_errno(errno.ENOENT, os.unlink, self.root / "none")
        self.assert_errno(errno.ENAMETOOLONG, os.mkdir, self.root / ("n" * 256))
        self.assert_errno(errno.EINVAL, os.rename, self.root / "d", self.root / "d" / "e" / "g")
        (self.root / ("n" * 255)).mkdir()
        self.assertEqual(sorted(os.listdir(self.root)), ["d", "f", "n" * 255])
        (self.root / "d" / "e").rmdir()
        self.assertEqual((self.root / "d").stat().st_nlink, 2)

    def test_rename_and_its_flags(self):
        (self.root / "a").write_text("a")
        (self.root / "b").write_text("b")
        (self.root / "x" / "below").mkdir(parents=True)
        self.assert_errno(errno.EEXIST, renameat2, self.root / "a", self.root / "b", RENAME_NOREPLACE)
        renameat2(self.root / "a", self.root / "c", RENAME_NOREPLACE)
        renameat2(self.root / "c", self.root / "b", RENAME_EXCHANGE)
        self.assertEqual((self.root / "b").read_text(), "a")
        self.assertEqual((self.root / "c").read_text(), "b")
        renameat2(self.root / "c", self.root / "x" / "below", RENAME_EXCHANGE)
        self.assertEqual((self.root / "x" / "below").read_text(), "b")
        self.assertEqual((self.root / "x").stat().st_nlink, 2)
        self.assertEqual(self.root.stat().st_nlink, 4)
        self.assert_errno(errno.ENOENT, renameat2, self.root / "b", self.root / "none", RENAME_EXCHANGE)
        os.rename(self.root / "b", self.root / "x" / "below")
        os.rename(self.root / "x", self.root / "c")
        self.assertEqual(os.listdir(self.root), ["c"])
        self.remount()
        self.assertEqual((self.root / "c" / "below").read_text(), "a")
        self.assertEqual(self.root.stat().st_nlink, 3)

    def test_a_rename_leaves_a_whiteout(self):
        (self.root / "d").mkdir()
        (self.root / "d" / "a").write_text("a")
        (self.root / "b").write_text("b")
        both = RENAME_WHITEOUT | RENAME_NOREPLACE
        self.assert_errno(errno.EEXIST, renameat2, self.root / "d" / "a", self.root / "b", both)
        renameat2(self.root / "d" / "a", self.root / "b", RENAME_WHITEOUT)
        renameat2(self.root / "b", self.root / "c", both)
        for attempt in range(2):
            self.assertEqual(sorted(os.listdir(self.root)), ["b", "c", "d"])
            self.assertEqual((self.root / "c").read_text(), "a")
            for place in (self.root / "d" / "a", self.root / "b"):
                found = os.lstat(place)
                self.assertEqual((found.st_mode, found.st_rdev, found.st_nlink), (stat.S_IFCHR, 0, 1))
            if attempt == 0:
                self.remount()
        os.unlink(self.root / "b")

    def test_an_open_file_lives_without_a_name(self):
        before = os.statvfs(self.root).f_bfree
        with open(self.root / "gone", "wb+") as file:
            file.write(os.urandom(1 << 20))
            os.unlink(self.root / "gone")
            self.assertEqual(os.fstat(file.fileno()).st_nlink, 0)
            file.write(b"more")
            file.seek(0)
            self.assertEqual(len(file.read()), (1 << 20) + 4)
            os.fsync(file.fileno())
        with open(self.root / "victim", "wb+") as file:
            file.write(b"old")
            file.flush()
            (self.root / "new").write_bytes(b"new")
            os.rename(self.root / "new", self.root / "victim")
            file.seek(0)
            self.assertEqual(file.read(), b"old")
        os.unlink(self.root / "victim")
        harness.tarn("cp", self.root)
        self.remount()
        self.assertEqual(os.listdir(self.root), [])
        self.assertLess(before - os.statvfs(self.root).f_bfree, 64)

    def test_extended_attributes(self):
        path = self.root / "file"
        path.touch()
        big = os.urandom(60000)
        os.setxattr(path, "user.small", b"value")
        os.setxattr(path, "user.empty", b"")
        os.setxattr(path, "user.big", big)
        os.setxattr(path, "trusted.mark", b"\0\1")
        self.assert_errno(errno.EEXIST, os.setxattr, path, "user.small", b"", os.XATTR_CREATE)
        self.assert_errno(errno.ENODATA, os.setxattr, path, "user.none", b"", os.XATTR_REPLACE)
        self.assert_errno(errno.ENODATA, os.getxattr, path, "user.none")
        os.setxattr(path, "user.small", b"other", os.XATTR_REPLACE)
        os.setxattr(self.root, "user.root", b"too")
        self.remount()
        names = ["trusted.mark", "user.big", "user.empty", "user.small"]
        self.assertEqual(sorted(os.listxattr(path)), names)
        self.assertEqual(os.getxattr(path, "user.big"), big)
        self.assertEqual(os.getxattr(path, "user.small"), b"other")
        self.assertEqual(os.getxattr(path, "user.empty"), b"")
        self.assertEqual(os.getxattr(self.root, "user.root"), b"too")
        for name in names:
            os.removexattr(path, name)
        self.assert_errno(errno.ENODATA, os.removexattr, path, "user.small")
        self.assertEqual(os.listxattr(path), [])

    def test_the_largest_attributes_of_every_namespace(self):
        path = self.root / "file"
        path.touch()
        values = {f"{space}.large": os.urandom(1 << 16) for space in ("user", "trusted", "security")}
        for name, value in values.items():
            os.setxattr(path, name, value)
            self.assert_errno(errno.E2BIG, os.setxattr, path, name, value + b"x")
        os.setxattr(self.root, "trusted.large", values["trusted.large"])
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        self.primary.kill()
        self.primary = self.mount(self.image, options="dev,suid,allow_other")
        for name, value in values.items():
            self.assertEqual(os.getxattr(path, name), value)
            buffer = ctypes.create_string_buffer(len(value) - 1)
            self.assertEqual(LIBC.getxattr(os.fsencode(path), name.encode(), buffer, len(buffer)), -1)
            self.assertEqual(ctypes.get_errno(), errno.ERANGE)
            self.assertEqual(LIBC.getxattr(os.fsencode(path), name.encode(), None, 0), len(value))
        self.assert_errno(errno.ERANGE, os.setxattr, path, "user." + "n" * 251, b"")
        for name in ("system.other", "other.name", "none"):
            self.assert_errno(errno.EOPNOTSUPP, os.setxattr, path, name, b"")
            self.assert_errno(errno.EOPNOTSUPP, os.getxattr, path, name)
            self.assert_errno(errno.EOPNOTSUPP, os.removexattr, path, name)
        self.assert_errno(errno.EINVAL, os.setxattr, path, "user.", b"")
        self.assert_errno(errno.EPERM, self.set_attribute_of_link)
        self.remount()
        self.assertEqual({name: os.getxattr(path, name) for name in os.listxattr(path)}, values)

    def set_attribute_of_link(self):
        os.symlink("file", self.root / "link")
        os.setxattr(self.root / "link", "user.name", b"", follow_symlinks=False)

    def test_as_many_attributes_as_there_can_be(self):
        """A list is at most 64 KiB, and what would not fit into it is refused with all the others still there."""
        path = self.root / "file"
        path.touch()
        names = []
        with self.assertRaises(OSError) as caught:
            for number in range(1000):
                name = f"user.{number:0250}"
                os.setxattr(path, name, str(number).encode())
                names.append(name)
        self.assertEqual(caught.exception.errno, errno.ENOSPC)
        self.assertEqual(len(names), 256, "of 256 bytes each in a list of 64 KiB")
        self.assertEqual(sorted(os.listxattr(path)), names)
        os.removexattr(path, names.pop())
        os.setxattr(path, "user.short", b"")
        self.remount()
        self.assertEqual(sorted(os.listxattr(path)), sorted([*names, "user.short"]))
        for number, name in enumerate(names):
            self.assertEqual(os.getxattr(path, name), str(number).encode())

    def test_access_control_lists(self):
        directory = self.root / "shared"
        directory.mkdir(mode=0o750)
        run("setfacl", "-m", "u:4711:rwx,g:4712:r-x,m::rwx", directory)
        run("setfacl", "-d", "-m", "u:4711:rw-,g::r-x,o::---", directory)
        os.umask(0o077)
        (directory / "file").touch()
        (directory / "below").mkdir()
        os.umask(0o022)
        self.remount()
        listing = run("getfacl", "-n", "-p", directory).stdout
        for line in ("user:4711:rwx", "group:4712:r-x", "default:user:4711:rw-", "default:other::---"):
            self.assertIn(line, listing)
        # The umask does not count where there is a default ACL; the mode's group bits are the mask.
        listing = run("getfacl", "-n", "-p", directory / "file").stdout
        for line in ("user:4711:rw-", "mask::rw-", "other::---"):
            self.assertIn(line, listing)
        self.assertEqual(stat.S_IMODE((directory / "file").stat().st_mode), 0o660)
        self.assertIn("default:user:4711:rw-", run("getfacl", "-n", "-p", directory / "below").stdout)
        os.chmod(directory / "file", 0o640)
        self.assertIn("mask::r--", run("getfacl", "-n", "-p", directory / "file").stdout)
        reader = ["setpriv", "--reuid=4711", "--regid=4711", "--clear-groups"]
        os.chmod(self.root, 0o755)
        os.chmod(self.directory, 0o755)
        (directory / "file").write_text("for 4711")
        self.assertEqual(run(*reader, "cat", directory / "file").stdout, "for 4711")
        run("setfacl", "-b", directory / "file")
        self.assertNotEqual(subprocess.run([*reader, "cat", directory / "file"], capture_output=True).returncode, 0)

    def test_sizes_holes_and_seeks(self):
        path = self.root / "sparse"
        with open(path, "wb+") as file:
            number = file.fileno()
            os.pwrite(number, b"start", 0)
            os.pwrite(number, b"far", 1 << 40)
            os.fsync(number)
            self.assertLess(os.fstat(number).st_blocks * 512, 1 << 20)
            # The kernel's cache may hold what is not written yet: nothing is called a hole here.
            self.assertEqual(os.lseek(number, 0, os.SEEK_HOLE), (1 << 40) + 3)
            self.assertEqual(os.lseek(number, 4096, os.SEEK_DATA), 4096)
            os.pwrite(number, b"not written", 1 << 30)
            self.assertEqual(os.lseek(number, 1 << 30, os.SEEK_DATA), 1 << 30)
            self.assert_errno(errno.ENXIO, os.lseek, number, (1 << 40) + 3, os.SEEK_DATA)
            os.ftruncate(number, 3)
            os.ftruncate(number, 10)
            self.assertEqual(os.pread(number, 20, 0), b"sta" + b"\0" * 7)
            data = os.urandom(1 << 20)
            os.pwrite(number, data, 0)
            fallocate(number, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 5000, 200000)
            fallocate(number, FALLOC_ZERO_RANGE, 300000, 10)
            fallocate(number, 0, 1 << 20, 8192)
            fallocate(number, FALLOC_KEEP_SIZE, 2 << 20, 8192)
            self.assertEqual(os.fstat(number).st_size, (1 << 20) + 8192)
        expected = bytearray(data + bytes(8192))
        expected[5000:205000] = bytes(200000)
        expected[300000:300010] = bytes(10)
        self.assertEqual(path.read_bytes(), bytes(expected))
        self.remount("ro")
        self.assertEqual(path.read_bytes(), bytes(expected))
        with open(path, "rb") as file:
            self.assertEqual(os.lseek(file.fileno(), 8192, os.SEEK_DATA), 204800)
            self.assertEqual(os.lseek(file.fileno(), 0, os.SEEK_HOLE), 8192)
            self.assertEqual(os.lseek(file.fileno(), 8192, os.SEEK_HOLE), 8192)
            self.assert_errno(errno.ENXIO, os.lseek, file.fileno(), (1 << 20) + 8192, os.SEEK_DATA)
        self.remount()

    def test_time_of_birth(self):
        path = self.root / "file"
        before = int(time.time())
        path.write_text("content")
        os.utime(path, (0, 0))
        born = run("stat", "-c", "%W", path).stdout.strip()
        if born == "0":
            self.skipTest("this libfuse does not pass on statx")
        self.assertIn(int(born), range(before, int(time.time()) + 1))
        for number in range(50):
            other = self.root / f"file {number}"
            other.write_text("content")
            born, changed = run("stat", "-c", "%.9W %.9Z", other).stdout.split()
            self.assertLessEqual(float(born), float(changed), "the kernel notes changes, we note births")
        born = run("stat", "-c", "%W", path).stdout.strip()
        self.remount()
        self.assertEqual(run("stat", "-c", "%W %Y", path).stdout.strip(), f"{born} 0")
        self.assertEqual(path.read_text(), "content")

    def test_copy_file_range(self):
        data = os.urandom(3_000_000)
        (self.root / "source").write_bytes(data)
        with open(self.root / "source", "rb") as source, open(self.root / "copy", "wb+") as copy:
            done = 0
            while done < len(data):
                count = os.copy_file_range(source.fileno(), copy.fileno(), len(data) - done, done, done)
                self.assertGreater(count, 0)
                done += count
            self.assertEqual(os.copy_file_range(source.fileno(), copy.fileno(), 10, len(data), 0), 0)
            os.copy_file_range(source.fileno(), copy.fileno(), 777, 100, 5001)
        expected = bytearray(data)
        expected[5001:5778] = data[100:877]
        self.assertEqual((self.root / "copy").read_bytes(), bytes(expected))

    def test_modes_owners_and_times(self):
        path = self.root / "file"
        path.write_bytes(b"x")
        os.chown(path, 1234, 4_000_000_000)
        os.chmod(path, 0o4751)
        # 1966, 1970, 2099 and 2477.
        for seconds in (-123_456_789, 0, 4_070_908_800, 16_000_000_000):
            os.utime(path, (seconds, seconds + 1))
            harness.tarn("cp", self.root)
            info = path.stat()
            self.assertEqual((info.st_atime_ns, info.st_mtime_ns), (seconds * 10**9, (seconds + 1) * 10**9))
        os.utime(path, ns=(-1, -2_000_000_001))
        self.remount()
        info = path.stat()
        self.assertEqual((info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)), (1234, 4_000_000_000, 0o4751))
        self.assertEqual((info.st_atime_ns, info.st_mtime_ns), (-1, -2_000_000_001))
        os.chown(path, 0, 0)
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o751, "chown drops the suid bit")
        # The request says neither owner nor group: the bits stayed.
        os.chmod(path, 0o6751)
        os.chown(path, -1, -1)
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o751, "chown of nothing drops them too")

    def test_times_far_from_now(self):
        """Before 1970, in 1901, and after 2038, 2106, 2446 and 9999, of every kind of inode."""
        (self.root / "file").write_bytes(b"x")
        (self.root / "directory").mkdir()
        os.symlink("nowhere", self.root / "link")
        os.mkfifo(self.root / "fifo")
        seconds = [-1, -(1 << 31) - 1, 1 << 31, 1 << 32, 15_032_385_536, 253_402_300_800]
        for second in seconds:
            expected = (second * 10**9 + 999_999_999, second * 10**9 + 1)
            for name in ("file", "directory", "link", "fifo"):
                os.utime(self.root / name, ns=expected, follow_symlinks=False)
            self.remount()
            for name in ("file", "directory", "link", "fifo"):
                info = (self.root / name).lstat()
                self.assertEqual((info.st_atime_ns, info.st_mtime_ns), expected, f"{name}, {second}")

    def test_a_write_by_another_drops_suid(self):
        path = self.root / "program"
        path.write_bytes(b"x")
        os.chmod(path, 0o6777)
        os.chmod(self.root, 0o755)
        os.chmod(self.directory, 0o755)
        run("setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", "sh", "-c", f"echo y >> {path}")
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o777)

    def assert_pieces(self, file, piece, size):
        """What was fsynced is in the volume, and not in the kernel's cache alone."""
        self.assertEqual(os.fstat(file.fileno()).st_size, size)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        for start in range(0, size, len(piece)):
            self.assertEqual(os.pread(file.fileno(), len(piece), start), piece[: size - start], f"at {start}")

    def test_blocks_of_a_file_that_stays_open(self):
        """du said 0 for it, and tar took it for one large hole."""
        path = self.root / "log"
        content = self.random.randbytes(1 << 20)
        with open(path, "wb", buffering=0) as file:
            self.assertLessEqual(path.stat().st_blocks, 1)
            file.write(content)
            self.assertGreater(path.stat().st_blocks, 0)
            tar = ["tar", "-cSO", "-C", str(self.root), "log"]
            archived = subprocess.run(tar, capture_output=True, check=True).stdout
            self.assertIn(content[-4096:], archived)
            os.fsync(file.fileno())
            harness.poll(lambda: path.stat().st_blocks * 512 >= len(content), "its blocks are told")
            file.write(content)
            os.fsync(file.fileno())
            harness.poll(lambda: path.stat().st_blocks * 512 >= 2 * len(content), "those that came later too")

    def test_a_writer_hears_that_the_volume_is_full(self):
        """write(2) is answered by the kernel's cache: a writer who neither synced nor closed wrote on for ever."""
        piece = self.random.randbytes(1 << 20)
        with open(self.root / "file", "w+b", buffering=0) as file:
            accepted = 0
            with self.assertRaises(OSError) as caught:
                for _ in range(8 << 10):
                    accepted += file.write(piece)
            self.assertEqual(caught.exception.errno, errno.ENOSPC)
            number = file.fileno()
            try:
                os.fsync(number)
            except OSError as error:
                self.assertEqual(error.errno, errno.ENOSPC)  # more was accepted than is kept for such
            else:
                self.assert_pieces(file, piece, accepted)
            # What is not there any more is no reason to refuse the next one.
            os.unlink(self.root / "file")
            os.ftruncate(number, 0)
            harness.tarn("cp", self.root)
            self.assertEqual(os.pwrite(number, b"content", 0), 7)
            os.fsync(number)
            self.assertEqual(os.fstat(number).st_size, 7)

    def test_listing_while_deleting(self):
        directory = self.root / "many"
        directory.mkdir()
        names = {f"file-{number:05}" for number in range(20_000)}
        for name in names:
            os.close(os.open(directory / name, os.O_CREAT | os.O_WRONLY))
        self.assertEqual(set(os.listdir(directory)), names)
        seen = []
        doomed = set(self.random.sample(sorted(names), 10_000))
        with os.scandir(directory) as entries:
            for entry in entries:
                seen.append(entry.name)
                # Deletes what was seen and what was not: neither may disturb the rest of the listing.
                for _ in range(2):
                    if doomed:
                        os.unlink(directory / doomed.pop())
        self.assertEqual(len(seen), len(set(seen)), "a name came twice")
        self.assertTrue(names - set(seen) <= names - set(os.listdir(directory)), "a name that stayed was not listed")
        remaining = set(os.listdir(directory))
        self.assertEqual(len(remaining), 10_000)
        self.remount()
        self.assertEqual(set(os.listdir(directory)), remaining)
        for name in remaining:
            os.unlink(directory / name)
        directory.rmdir()

    def test_unnamed_files(self):
        """O_TMPFILE, where libfuse knows it (from 3.17 on); before that the answer is EOPNOTSUPP."""
        try:
            number = os.open(self.root, os.O_TMPFILE | os.O_RDWR, 0o600)
        except OSError as error:
            self.assertEqual(error.errno, errno.EOPNOTSUPP)
            return
        os.write(number, b"unnamed")
        # Only with a directory's descriptor does Python follow the link.
        directory = os.open(self.root, os.O_RDONLY)
        os.link(f"/proc/self/fd/{number}", "named", src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=True)
        os.close(directory)
        os.close(number)
        self.remount()
        self.assertEqual((self.root / "named").read_bytes(), b"unnamed")


class FullVolume(TarnTest):
    def fill(self, root):
        """Writes until there is no space; returns the files that were completely accepted."""
        accepted = {}
        chunk = os.urandom(1 << 20)
        for number in range(1000):
            path = root / f"fill-{number}"
            try:
                with open(path, "wb") as file:
                    file.write(chunk)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                self.assertEqual(error.errno, errno.ENOSPC)
                return accepted, chunk
            accepted[path] = True
        raise AssertionError("a volume of 64 MiB took 1000 MiB")

    def test_no_space_then_delete_then_it_works_again(self):
        image = self.make_volume(size="64M")
        primary = self.mount(image)
        root = primary.mountpoint
        for attempt in range(3):
            accepted, chunk = self.fill(root)
            self.assertGreater(len(accepted), 32, "most of the volume can be filled")
            harness.tarn("cp", root)
            for path in accepted:
                self.assertEqual(path.read_bytes(), chunk)
            for name in os.listdir(root):
                os.unlink(root / name)
            harness.tarn("cp", root)
            if attempt == 1:
                primary.unmount()
                self.assert_clean(image)
                primary = self.mount(image)
        primary.unmount()
        self.assert_clean(image)

    def test_names_fill_a_volume_and_leave_it(self):
        image = self.make_volume(size="16M")
        primary = self.mount(image)
        root = primary.mountpoint
        with self.assertRaises(OSError) as caught:
            for number in range(1_000_000):
                (root / f"empty-{number}").touch()
        self.assertEqual(caught.exception.errno, errno.ENOSPC)
        harness.tarn("cp", root)
        count = len(os.listdir(root))
        self.assertGreater(count, 10_000)
        for name in os.listdir(root):
            os.unlink(root / name)
        (root / "again").write_bytes(b"works")
        primary.unmount()
        self.assert_clean(image)


if __name__ == "__main__":
    harness.main()
