"""A mirror that feeds another one: three daemons, one pair of keys."""

import json
import shutil
import signal

import harness
from harness import TarnTest, free_port, poll, program, run, tarn


class Cascade(TarnTest):
    def setUp(self):
        super().setUp()
        self.keys = self.directory / "keys"
        run(program("tarn"), "keygen", self.keys)
        shutil.copy(self.keys / "public.key", self.keys / "peers" / "every-one")
        self.ports = [free_port(), free_port()]
        # A socket of its own place: who asks for a mountpoint asks all in the usual one, and this one will stand still.
        self.third_socket = self.directory / "third.socket"
        self.third = self.start_one("third", 1, "--control", self.third_socket)
        self.middle = self.start_one("middle", 0, "--mirror", f"tcp://127.0.0.1:{self.ports[1]}")
        self.image = self.make_volume(size="32M")
        self.primary = self.mount_primary(0)

    def start_one(self, name, number, *options):
        mountpoint = self.make_directory(name)
        command = [program("tarn-mirrord"), "-f", "--listen", f"tcp://127.0.0.1:{self.ports[number]}"]
        command += ["--image", self.directory / f"{name}.tarnfs", "--mount", mountpoint, "--keys", self.keys]
        command += ["--dead-after", "60", *options]
        return self.start("tarn-mirrord", command, mountpoint)

    def mount_primary(self, number):
        return self.mount(self.image, options=f"cp_interval=3600,keys={self.keys}", mirror=self.ports[number])

    def change(self):
        for number in range(5):
            (self.primary.mountpoint / f"file-{number}").write_bytes(self.random.randbytes(200_000))
        tarn("cp", "--mirror", self.primary.mountpoint)

    def third_status(self):
        return json.loads(tarn("status", "--json", self.third_socket).stdout)

    def all_equal(self):
        """The third mirror has the newest state; the primary waits for its own mirror only."""
        state = self.primary.status()
        poll(lambda: self.third_status()["cp"] == state["cp"], "the third mirror to have it")
        self.assertEqual(self.third_status()["root"], state["root"])
        self.assert_same_tree(self.primary.mountpoint, self.third.mountpoint)

    def test_a_mirror_of_a_mirror(self):
        self.change()
        self.all_equal()
        feeding, fed = self.middle.status()["mirrors"]
        self.assertEqual((feeding["role"], fed["role"]), ("primary", "mirror"))
        self.assertTrue(fed["encrypted"])
        self.assertIn(str(self.ports[1]), fed["url"])
        text = tarn("status", self.middle.mountpoint).stdout
        self.assertRegex(text, rf"(?s)\n  primary  .*\n  mirror      tcp://127.0.0.1:{self.ports[1]}  live")

        # One that stands still holds nobody up, and one that is paused stays where it is.
        self.third.process.send_signal(signal.SIGSTOP)
        begin = self.primary.status()["cp"]
        for _ in range(100):
            self.change()
            fed = self.middle.status()["mirrors"][1]
            if fed["held_bytes"] > 0:
                break
        self.assertGreater(fed["held_bytes"], 0)  # of what the third one is being sent
        self.assertGreaterEqual(fed["lag_cps"], self.primary.status()["cp"] - begin)
        self.assertEqual(fed["pins_lost"], 0)
        self.third.process.send_signal(signal.SIGCONT)
        self.all_equal()
        before = self.third_status()["cp"]
        tarn("pause", self.middle.mountpoint)
        self.change()
        self.assertEqual(self.third_status()["cp"], before)
        tarn("resume", self.middle.mountpoint)
        self.all_equal()

        # The middle one dies and comes back.
        self.middle.kill()
        (self.primary.mountpoint / "more").write_bytes(self.random.randbytes(1 << 20))
        self.middle = self.start_one("middle", 0, "--mirror", f"tcp://127.0.0.1:{self.ports[1]}")
        self.change()
        self.all_equal()

        # And in its place the primary itself feeds the third one.
        self.primary.unmount()
        self.middle.terminate()
        self.primary = self.mount_primary(1)
        self.change()
        self.all_equal()
        self.primary.unmount()
        self.third.terminate()
        for name in ("volume", "middle", "third"):
            self.assert_clean(self.directory / f"{name}.tarnfs")


if __name__ == "__main__":
    harness.main()
