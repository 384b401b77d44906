#!/usr/bin/env python3
"""Bad input: each gets one line that says what is wrong, an exit code, and loses nothing."""

import hashlib
import os
import socket
import struct

import harness
from harness import TarnTest, free_port, program, run, tarn

FORMAT_VERSION_OFFSET = 8  # in the superblock: the magic is before it
CP_OFFSET = 48  # in a root block
ROOT_SLOTS = [*range(1, 17), *range(16384 - 17, 16384 - 1)]  # the blocks in an image of 64 MiB


def hash_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


class BadImage(TarnTest):
    def assert_refused(self, image, *words):
        """tarnfs and fsck.tarnfs refuse the image with one line, and leave its bytes alone."""
        before = hash_of(image) if image.is_file() else None
        mountpoint = self.make_directory("mount")
        for foreground in ((), ("-f",)):
            result = run(program("tarnfs"), *foreground, image, mountpoint, expect=1, seconds=60)
            self.assert_one_line_error(result, image, *words)
        self.assertIsNone(harness.mount_entry(mountpoint))
        self.assert_one_line_error(run(program("fsck.tarnfs"), "-n", image, expect=8), image, *words)
        if before:
            self.assertEqual(hash_of(image), before)

    def damage(self, image, offset, content):
        with open(image, "r+b") as file:
            file.seek(offset)
            file.write(content)

    def test_an_image_that_is_missing_or_a_directory(self):
        self.assert_refused(self.directory / "none.tarnfs", "No such file")
        self.assert_refused(self.make_directory("folder"))

    def test_an_image_that_is_no_volume(self):
        image = self.directory / "random"
        image.write_bytes(self.random.randbytes(8 << 20))
        self.assert_refused(image, "no tarnfs volume")
        image.write_bytes(bytes(8 << 20))
        self.assert_refused(image, "no tarnfs volume")

    def test_an_image_that_is_too_small(self):
        image = self.directory / "small"
        for size in (0, 100, 4096, 1 << 20):
            image.write_bytes(bytes(size))
            self.assert_refused(image, "small")

    def test_an_image_that_is_truncated(self):
        image = self.make_volume(size="64M")
        os.truncate(image, 40 << 20)
        self.assert_refused(image, "truncated")
        os.truncate(image, 64 << 20)
        # The end, with its root slots, is zeros now; the roots at the front are still there, or there is a clear word.
        result = run(program("fsck.tarnfs"), "-n", image, expect=None)
        self.assertIn(result.returncode, (0, 4))

    def test_a_newer_format(self):
        image = self.make_volume(size="64M")
        for offset in (0, (64 << 20) - 4096):
            self.damage(image, offset + FORMAT_VERSION_OFFSET, struct.pack("<I", 5))
        self.assert_refused(image, "version 5", "versions 3 to 4")

    def test_a_damaged_superblock_and_damaged_roots(self):
        image = self.make_volume(size="64M")
        content = image.read_bytes()
        self.damage(image, 100, b"damage")
        primary = self.mount(image)  # the copy at the end serves
        primary.unmount()
        image.write_bytes(content)
        for slot in ROOT_SLOTS:
            self.damage(image, slot * 4096 + 200, b"damage")
        self.assert_refused(image, "root")

    def test_a_damaged_newest_root_is_told(self):
        image = self.make_volume(size="64M")
        primary = self.mount(image)
        (primary.mountpoint / "file").write_text("content")
        primary.unmount()
        self.assertNotIn("is damaged", primary.log_text())
        newest_cp, slot = max(self.roots_of(image))
        self.damage(image, slot * 4096 + 200, b"damage")
        primary = self.mount(image)
        warning = f"block {slot}, where the state after cp {newest_cp - 1} would stand, is damaged"
        self.assertIn(warning, primary.log_text())
        primary.unmount()

    def roots_of(self, image):
        """The cp and the block of each root in an image of 64 MiB."""
        content = image.read_bytes()
        return [
            (struct.unpack_from("<Q", content, slot * 4096 + CP_OFFSET)[0], slot)
            for slot in ROOT_SLOTS
            if content.startswith(b"TARNROOT", slot * 4096)
        ]

    def test_an_image_in_use(self):
        image = self.make_volume(size="64M")
        primary = self.mount(image)
        other = self.make_directory("other")
        (primary.mountpoint / "file").write_text("content")
        for command, code in (
            ((program("tarnfs"), image, other), 1),
            ((program("fsck.tarnfs"), "-n", image), 8),
            ((program("mkfs.tarnfs"), "-f", image), 1),
            ((program("tarn-mirrord"), "-f", "--listen", f"tcp://127.0.0.1:{free_port()}", "--image", image), 1),
        ):
            self.assert_one_line_error(run(*command, expect=code, seconds=120), image, "unmount it")
        self.assertEqual((primary.mountpoint / "file").read_text(), "content")
        primary.unmount()
        self.assert_clean(image)


class BadArguments(TarnTest):
    def test_a_mountpoint_that_is_none(self):
        image = self.make_volume(size="64M")
        file = self.directory / "file"
        file.touch()
        for mountpoint in (self.directory / "none", file):
            result = run(program("tarnfs"), image, mountpoint, expect=1, seconds=60)
            self.assert_one_line_error(result, mountpoint)
        primary = self.mount(image)
        primary.unmount()

    def test_usage(self):
        image = self.make_volume(size="64M")
        mountpoint = self.make_directory("mount")
        for command in (
            ("tarnfs",),
            ("tarnfs", image),
            ("tarnfs", "-o", "no_such_option", image, mountpoint),
            ("tarnfs", "-o", "cp_interval=often", image, mountpoint),
            ("tarnfs", "-o", "mirror=http://somewhere", image, mountpoint),
            ("mkfs.tarnfs",),
            ("mkfs.tarnfs", "-s", "many", self.directory / "new"),
            ("fsck.tarnfs", "--no-such-option", image),
            ("tarn-mirrord", "--image", image),
            ("tarn",),
            ("tarn", "no-such-command"),
            ("tarn", "cp"),
        ):
            result = run(program(command[0]), *command[1:], expect=2, seconds=60)
            self.assert_one_line_error(result)
        self.assertIsNone(harness.mount_entry(mountpoint))

    def test_help_and_version(self):
        for name in ("tarnfs", "mkfs.tarnfs", "fsck.tarnfs", "tarn-mirrord", "tarn"):
            self.assertIn("--version", run(program(name), "--help").stdout)
            self.assertRegex(run(program(name), "--version").stdout, r"\d+\.\d+\.\d+")

    def test_mkfs_refuses(self):
        image = self.directory / "image"
        mkfs = program("mkfs.tarnfs")
        self.assert_one_line_error(run(mkfs, image, expect=2), image)
        self.assert_one_line_error(run(mkfs, "-s", "1M", image, expect=2), "1M", "4.0M")
        run("truncate", "-s", "64M", image)
        run("mkswap", image)
        before = hash_of(image)
        self.assert_one_line_error(run(mkfs, image, expect=1), image, "-f")
        self.assertEqual(hash_of(image), before)
        run(mkfs, "-f", image)
        self.assert_one_line_error(run(mkfs, image, expect=1), image, "tarnfs", "-f")
        self.assert_clean(image)

    def test_tarn_without_a_daemon(self):
        image = self.make_volume(size="64M")
        for command in (("status", self.directory), ("cp", self.directory), ("cp", self.directory / "none")):
            self.assert_one_line_error(tarn(*command, expect=1), command[1])
        primary = self.mount(image)
        self.assert_one_line_error(tarn("cp", "--mirror", primary.mountpoint, expect=1, seconds=60), "mirror")


class BadPeer(TarnTest):
    def test_a_mirror_of_another_volume(self):
        port = free_port()
        mirror = self.start_mirror(port)
        first = self.mount(self.make_volume("first.tarnfs", "64M"), name="first", mirror=port)
        (first.mountpoint / "file").write_text("of the first volume")
        tarn("cp", "--mirror", first.mountpoint)
        first.unmount()
        state = mirror.status()
        second = self.mount(self.make_volume("second.tarnfs", "64M"), name="second", mirror=port)
        (second.mountpoint / "file").write_text("of the second volume")
        result = tarn("cp", "--mirror", second.mountpoint, expect=1)
        self.assert_one_line_error(result, "volume")
        self.assertNotEqual(second.status()["mirrors"][0]["state"], "live")
        self.assertEqual((mirror.mountpoint / "file").read_text(), "of the first volume")
        self.assertEqual(mirror.status()["root"], state["root"])
        self.assertEqual((second.mountpoint / "file").read_text(), "of the second volume")
        second.unmount()
        first = self.mount(self.directory / "first.tarnfs", name="first", mirror=port)
        (first.mountpoint / "file").write_text("goes on")
        tarn("cp", "--mirror", first.mountpoint)
        self.assertEqual((mirror.mountpoint / "file").read_text(), "goes on")

    def test_a_port_that_is_taken(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            url = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
            command = [program("tarn-mirrord"), "-f", "--listen", url, "--image", self.directory / "mirror.tarnfs"]
            self.assert_one_line_error(run(*command, expect=1, seconds=60), url)

    def test_something_else_that_connects(self):
        port = free_port()
        mirror = self.start_mirror(port)
        for noise in (b"", b"GET / HTTP/1.1\r\n\r\n", self.random.randbytes(100_000), b"\xff" + bytes(8) + b"\x7f"):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                try:
                    connection.sendall(noise)
                    connection.shutdown(socket.SHUT_WR)
                    connection.settimeout(5)
                    while connection.recv(4096):
                        pass
                except OSError:
                    pass  # a connection that is dropped is fine
        primary = self.mount(self.make_volume(size="64M"), mirror=port)
        tarn("cp", "--mirror", primary.mountpoint)
        self.assertIsNone(mirror.process.poll())


class FullDisk(TarnTest):
    def test_a_full_disk_under_the_image(self):
        disk = self.make_directory("disk")
        run("mount", "-t", "tmpfs", "-o", "size=24M", "tmpfs", disk)
        image = disk / "volume.tarnfs"
        run(program("mkfs.tarnfs"), "-s", "256M", image)
        primary = self.mount(image, options="cp_interval=1")
        kept = self.random.randbytes(4 << 20)
        with open(primary.mountpoint / "kept", "wb") as file:
            file.write(kept)
            file.flush()
            os.fsync(file.fileno())
        with self.assertRaises(OSError):
            with open(primary.mountpoint / "too much", "wb") as file:
                for _ in range(64):
                    file.write(self.random.randbytes(1 << 20))
                    file.flush()
                    os.fsync(file.fileno())
        self.assertEqual((primary.mountpoint / "kept").read_bytes(), kept)
        self.assertGreater(primary.status()["errors"], 0)
        self.assert_one_line_error(tarn("cp", primary.mountpoint, expect=1), image)
        run("umount", "-i", primary.mountpoint)
        primary.wait(expect=None)
        self.assert_clean(image)
        run("mount", "-o", "remount,size=512M", disk)
        primary = self.mount(image)
        self.assertEqual((primary.mountpoint / "kept").read_bytes(), kept)
        (primary.mountpoint / "more").write_bytes(kept * 8)
        tarn("cp", primary.mountpoint)
        primary.unmount()
        self.assert_clean(image)

    def test_a_full_disk_under_the_mirror(self):
        disk = self.make_directory("disk")
        run("mount", "-t", "tmpfs", "-o", "size=24M", "tmpfs", disk)
        port = free_port()
        mountpoint = self.make_directory("mirror")
        command = [program("tarn-mirrord"), "-f", "--listen", f"tcp://127.0.0.1:{port}"]
        command += ["--image", disk / "mirror.tarnfs", "--mount", mountpoint]
        mirror = self.start("tarn-mirrord", command, mountpoint)
        image = self.make_volume(size="256M")
        primary = self.mount(image, mirror=port)
        kept = self.random.randbytes(4 << 20)
        (primary.mountpoint / "kept").write_bytes(kept)
        tarn("cp", "--mirror", primary.mountpoint)
        (primary.mountpoint / "more").write_bytes(self.random.randbytes(40 << 20))
        tarn("cp", primary.mountpoint)  # the primary goes on
        self.assert_one_line_error(tarn("cp", "--mirror", primary.mountpoint, expect=1), "mirror")
        self.assertEqual((mirror.mountpoint / "kept").read_bytes(), kept)
        run("mount", "-o", "remount,size=512M", disk)
        mirror.process.terminate()
        mirror.wait(expect=None)
        mirror = self.start("tarn-mirrord", command, mountpoint)
        tarn("cp", "--mirror", primary.mountpoint)
        self.assert_same_tree(primary.mountpoint, mirror.mountpoint)
        primary.unmount()
        mirror.terminate()
        self.assert_clean(disk / "mirror.tarnfs")


if __name__ == "__main__":
    harness.main()
