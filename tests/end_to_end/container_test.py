#!/usr/bin/env python3
"""The root of a container is unpacked in a mirrored volume as it is, works there, and dpkg installs 100 packages in it.

It is Debian's minimal system, from the archive that the machine's own apt uses; where that cannot be reached the test
is skipped. Only at full size.
"""

import os
import re
import shlex
import shutil
import stat
import sys
from pathlib import Path

import harness
from harness import TarnTest, free_port, run, tarn

PACKAGES = ["build-essential", "cmake", "curl", "gdb", "git", "openssh-client", "python3", "rsync", "sqlite3"]
INSTALLED_MIN = 100
NOBODY = "65534:65534"


def debian():
    """(code name, address of the archive), as apt has them; None where it has none."""
    name = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    targets = run("apt-get", "indextargets", "--format", "$(CODENAME) $(SITE)", "Created-By: Packages", expect=None)
    for line in targets.stdout.splitlines():
        found, site = line.split(" ", 1)
        if name and found == name.group(1):
            return found, site
    return None


def add_what_is_rare(root):
    """What a minimal system has none of, or only few."""
    tools = root / "usr" / "local" / "bin"
    for name in ("chown", "id"):
        shutil.copy2(root / "usr" / "bin" / name, tools / name, follow_symlinks=True)
    run("setcap", "cap_chown+ep", tools / "chown")
    os.chmod(tools / "id", 0o4755)
    place = root / "srv" / "rare"
    place.mkdir()
    os.mknod(place / "character", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(place / "block", stat.S_IFBLK | 0o640, os.makedev(7, 300))
    os.mkfifo(place / "fifo", 0o620)
    for number in range(50):
        path = place / f"file-{number}"
        path.write_bytes(bytes([number]) * number * 1000)
        os.link(path, place / f"link-{number}")
        os.setxattr(path, "user.number", b"%d" % number)
        os.setxattr(path, "trusted.number", b"%d" % number)
        os.chown(path, 100_000 + number, 4_000_000_000 + number)
        os.chmod(path, 0o6000 | (number << 3) | number)
    os.symlink("nowhere", place / "symlink")
    os.chown(place / "symlink", 4711, 4712, follow_symlinks=False)
    run("setfacl", "-m", "u:4711:rwx", "-d", "-m", "g:4712:r-x", place)
    os.chmod(root / "srv", 0o3775)


class Container(TarnTest):
    def setUp(self):
        super().setUp()
        self.original = self.make_directory("original")
        self.make_root()
        add_what_is_rare(self.original)
        port = free_port()
        self.image = self.make_volume(size="8G")
        self.mirror = self.start_mirror(port)
        self.primary = self.mount(self.image, options="allow_other,dev,suid", mirror=port)
        self.root = self.primary.mountpoint / "root"
        self.root.mkdir()

    def make_root(self):
        """A minimal system on the file system of the machine."""
        found = debian()
        if found is None:
            self.skipTest("apt knows no archive of this system")
        name, site = found
        result = run("debootstrap", "--variant=minbase", name, self.original, site, expect=None, seconds=1800)
        if result.returncode != 0:
            self.skipTest(f"debootstrap cannot fetch a system here: {result.stdout[-500:]}{result.stderr[-500:]}")

    def inside(self, *command, user=None, expect=0, seconds=300):
        options = [f"--userspec={user}"] if user else []
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        environment["DEBIAN_FRONTEND"] = "noninteractive"
        return run("chroot", *options, self.root, *command, expect=expect, seconds=seconds, env=environment)

    def assert_mirrored(self):
        tarn("cp", "--mirror", self.primary.mountpoint)
        self.assert_same_tree(self.primary.mountpoint, self.mirror.mountpoint)

    def test_a_root_is_unpacked_works_and_grows(self):
        words = "--numeric-owner --acls --xattrs --xattrs-include='*'"
        source, target = shlex.quote(str(self.original)), shlex.quote(str(self.root))
        run("bash", "-o", "pipefail", "-c", f"tar -C {source} {words} -cf - . | tar -C {target} {words} -xpf -")
        self.assert_same_tree(self.original, self.root)
        print(f"{sum(len(names) for _, _, names in os.walk(self.root))} files unpacked", flush=True)
        self.assert_mirrored()
        self.try_what_was_unpacked()
        self.install_packages()
        self.assert_mirrored()
        self.primary.unmount()
        self.mirror.terminate()
        self.assert_clean(self.image)
        self.assert_clean(self.directory / "mirror.tarnfs")

    def try_what_was_unpacked(self):
        self.inside("sh", "-c", "echo gone > /srv/rare/character && test ! -s /srv/rare/character")
        self.assertEqual(self.inside("/usr/local/bin/id", "-u", user=NOBODY).stdout.strip(), "0", "set-user-id")
        self.assertEqual(self.inside("/usr/bin/id", "-u", user=NOBODY).stdout.strip(), NOBODY.partition(":")[0])
        file = self.root / "tmp" / "file"
        file.touch()
        self.inside("/usr/bin/chown", "4711:4712", "/tmp/file", user=NOBODY, expect=1)
        self.inside("/usr/local/bin/chown", "4711:4712", "/tmp/file", user=NOBODY)
        self.assertEqual((file.stat().st_uid, file.stat().st_gid), (4711, 4712), "a file's capability")

    def installed(self):
        lines = self.inside("dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package}\n").stdout.splitlines()
        return {line.split()[1] for line in lines if line.startswith("ii")}

    def install_packages(self):
        # The name server and apt's proxies, if any, are those of this machine. No service is to be started.
        shutil.copy("/etc/resolv.conf", self.root / "etc" / "resolv.conf")
        acquire = run("apt-config", "dump", "Acquire").stdout
        (self.root / "etc" / "apt" / "apt.conf.d" / "99machine").write_text(acquire)
        policy = self.root / "usr" / "sbin" / "policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        run("mount", "-t", "proc", "proc", self.root / "proc")
        before = self.installed()
        self.inside("apt-get", "-qq", "update", seconds=600)
        self.inside("apt-get", "-qq", "install", "-y", "--no-install-recommends", *PACKAGES, seconds=1800)
        new = self.installed() - before
        print(f"{len(new)} packages installed", flush=True)
        self.assertGreaterEqual(len(new), INSTALLED_MIN)
        self.assertEqual(self.inside("dpkg", "--audit").stdout, "")
        # Each file has the content that its package says; configuration files may have been changed.
        changed = self.inside("dpkg", "--verify", expect=None, seconds=600).stdout.splitlines()
        self.assertEqual([line for line in changed if line.split()[1] != "c"], [])
        (self.root / "tmp" / "hello.c").write_text('#include <stdio.h>\nint main() { puts("hello"); }\n')
        self.inside("cc", "-o", "/tmp/hello", "/tmp/hello.c")
        self.assertEqual(self.inside("/tmp/hello").stdout, "hello\n")
        self.assertEqual(self.inside("python3", "-c", "import ssl; print(6 * 7)").stdout, "42\n")
        run("umount", self.root / "proc")


if __name__ == "__main__":
    if not harness.FULL or shutil.which("debootstrap") is None or shutil.which("setcap") is None:
        print("skipped: it is for the full size, and takes debootstrap and setcap")
        sys.exit(harness.SKIPPED)
    harness.main()
