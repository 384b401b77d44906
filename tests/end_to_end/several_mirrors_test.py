"""Several mirrors of one volume: each at its own pace, and none delays the volume or another one."""

import signal
import time

import harness
from harness import FULL, TarnTest, free_port, poll, program, tarn

MIRRORS = 8 if FULL else 3


class SeveralMirrors(TarnTest):
    def setUp(self):
        super().setUp()
        self.ports = [free_port() for _ in range(MIRRORS)]
        self.mirrors = [self.start_one(number) for number in range(MIRRORS)]
        self.image = self.make_volume(size="256M")
        options = [f"mirror=tcp://127.0.0.1:{port}" for port in self.ports]
        self.primary = self.mount(self.image, options=",".join(["cp_interval=3600", "dead_after=2", *options]))
        self.all_equal()

    def start_one(self, number):
        # A socket of its own place: who asks for a mountpoint asks all in the usual one, and one will stand still.
        mountpoint = self.make_directory(f"mirror-{number}")
        command = [program("tarn-mirrord"), "-f", "--listen", f"tcp://127.0.0.1:{self.ports[number]}"]
        command += ["--image", self.directory / f"mirror-{number}.tarnfs", "--mount", mountpoint]
        command += ["--control", self.directory / f"mirror-{number}.socket"]
        return self.start("tarn-mirrord", command, mountpoint)

    def change(self):
        for number in range(5):
            (self.primary.mountpoint / f"file-{number}").write_bytes(self.random.randbytes(200_000))
        tarn("cp", self.primary.mountpoint)

    def peers(self):
        return self.primary.status()["mirrors"]

    def all_equal(self):
        tarn("cp", "--mirror", self.primary.mountpoint)
        status = self.primary.status()
        self.assertEqual({peer["published_cp"] for peer in status["mirrors"]}, {status["cp"]})
        self.assertEqual({peer["state"] for peer in status["mirrors"]}, {"live"})

    def test_each_at_its_own_pace(self):
        self.change()
        self.all_equal()
        away, still, *others = range(MIRRORS)
        self.mirrors[away].kill()
        self.mirrors[still].process.send_signal(signal.SIGSTOP)
        for _ in range(5):
            self.change()
            cp = self.primary.status()["cp"]
            poll(lambda: all(self.peers()[number]["published_cp"] == cp for number in others), "the others to have it")
        peers = self.peers()
        for number in (away, still):
            self.assertGreaterEqual(peers[number]["lag_cps"], 5)
            self.assertGreater(peers[number]["lag_bytes"], 1_000_000)
        for number in others:
            self.assertEqual((peers[number]["lag_cps"], peers[number]["lag_bytes"]), (0, 0))
            self.assert_same_tree(self.primary.mountpoint, self.mirrors[number].mountpoint)
        self.mirrors[still].process.send_signal(signal.SIGCONT)
        self.mirrors[away] = self.start_one(away)
        healed = time.monotonic()
        self.all_equal()
        print(f"  equal {time.monotonic() - healed:.1f} s after it healed", flush=True)
        for mirror in self.mirrors:
            self.assert_same_tree(self.primary.mountpoint, mirror.mountpoint)
        self.primary.unmount()
        for number, mirror in enumerate(self.mirrors):
            mirror.terminate()
            self.assert_clean(self.directory / f"mirror-{number}.tarnfs")

    def test_consistency_points_do_not_wait_for_any(self):
        def seconds_of_a_point():
            begin = time.monotonic()
            self.change()
            return time.monotonic() - begin

        before = sorted(seconds_of_a_point() for _ in range(9))[4]
        for mirror in self.mirrors:
            mirror.process.send_signal(signal.SIGSTOP)
        stopped = sorted(seconds_of_a_point() for _ in range(9))[4]
        for mirror in self.mirrors:
            mirror.process.send_signal(signal.SIGCONT)
        print(f"  a point with all mirrors {before:.3f} s, with none that moves {stopped:.3f} s", flush=True)
        self.assertLess(stopped, max(3 * before, 1), "a timeout of any kind takes longer")
        self.all_equal()
        self.primary.unmount()


if __name__ == "__main__":
    harness.main()
