"""Two machines, which are network namespaces joined by a cable, with keys for each other."""

import shutil

from harness import TarnTest, program, run, tarn

PRIMARY_ADDRESS = "10.77.0.1"
MIRROR_ADDRESS = "10.77.0.2"
URL = f"tcp://{MIRROR_ADDRESS}:7410"


class TwoMachines(TarnTest):
    def setUp(self):
        super().setUp()
        for name in ("primary", "mirror"):
            run("ip", "netns", "add", name)
            self.addCleanup(run, "ip", "netns", "delete", name, expect=None)
        run("ip", "-n", "primary", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", "mirror")
        for name, address in (("primary", PRIMARY_ADDRESS), ("mirror", MIRROR_ADDRESS)):
            run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "cable")
            run("ip", "-n", name, "link", "set", "cable", "up")
            run("ip", "-n", name, "link", "set", "lo", "up")

    def on(self, machine, *command):
        """The command as it is given on that machine."""
        return ["nsenter", f"--net=/run/netns/{machine}", *command]

    def make_keys(self, machine):
        directory = self.directory / f"{machine}.keys"
        result = tarn("keygen", directory)
        self.assertIn(str(directory / "public.key"), result.stdout)
        return directory

    def exchange_keys(self):
        self.primary_keys, self.mirror_keys = self.make_keys("primary"), self.make_keys("mirror")
        shutil.copy(self.mirror_keys / "public.key", self.primary_keys / "peers" / MIRROR_ADDRESS)
        shutil.copy(self.primary_keys / "public.key", self.mirror_keys / "peers" / "primary")

    def mirror_command(self, *more):
        image, mountpoint = self.directory / "mirror.tarnfs", self.make_directory("mirror")
        command = [program("tarn-mirrord"), "-f", "--listen", URL, "--image", image, "--mount", mountpoint, *more]
        return self.on("mirror", *command), mountpoint

    def primary_command(self, image, options):
        mountpoint = self.make_directory("primary")
        return self.on("primary", program("tarnfs"), "-f", "-o", options, image, mountpoint), mountpoint

    def start_both(self, size="256M", url=URL, primary_options=(), mirror_options=()):
        command, mountpoint = self.mirror_command("--keys", self.mirror_keys, *mirror_options)
        self.mirror = self.start("tarn-mirrord", command, mountpoint)
        self.image = self.make_volume(size=size)
        options = ",".join([f"mirror={url},keys={self.primary_keys}", *primary_options])
        command, mountpoint = self.primary_command(self.image, options)
        self.primary = self.start("tarnfs", command, mountpoint)

    def peer(self):
        return self.primary.status()["mirrors"][0]
