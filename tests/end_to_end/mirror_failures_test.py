"""What a mirror goes through: a network that is away, slow or lying, peers that stand still, and kill -9 at each point.

At every moment the mirror shows a state that the primary had, whole; and when the trouble is over both have the same
root within ten seconds and the time that the blocks take.
"""

import hashlib
import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import time
import traceback
import unittest
from pathlib import Path

import harness
from harness import FULL, PATIENCE_SECONDS, SEED, TOP, TarnTest, detach, free_port, poll, program, run, tarn
from machines import MIRROR_ADDRESS, TwoMachines
from pairs import DirectData, PairWatch

# What is promised; by default the machine has other tests to run.
HEALED_SECONDS_MAX = 10 if FULL else PATIENCE_SECONDS
# By default the sides look for each other more often, so that all that happens happens in less time.
PING_SECONDS, DEAD_SECONDS = (1, 5) if FULL else (0.2, 1)
DOWN_SECONDS, STOPPED_SECONDS = (60, 30) if FULL else (2, 2)
NOTICED_SECONDS_MAX = DEAD_SECONDS + PING_SECONDS + 2 if FULL else PATIENCE_SECONDS
# A handshake of four round trips is to have its time, too.
SLOW_PING_SECONDS, SLOW_DEAD_SECONDS = (1, 5) if FULL else (0.5, 3)
RELAY_PORT = 7411


class Load:
    """Rewrites files at random until stop(), while pairs are watched (pairs.py). In a process of its own: one that has
    files open on the mount of a daemon that stands still may stand still with it, for instance when it forks."""

    def __init__(self, test):
        self.test = test
        self.roots = [daemon.mountpoint for daemon in (test.primary, test.mirror)]
        for name in ("load", "pairs"):
            (self.roots[0] / name).mkdir()
        told_to_stop, self.stopping = os.pipe()
        ready, started = os.pipe()
        self.process = os.fork()
        if self.process == 0:
            os.close(self.stopping)
            self.run(told_to_stop, started)
        os.close(told_to_stop)
        os.close(started)
        self.test.assertEqual(os.read(ready, 1), b"x", "the load has begun")
        os.close(ready)

    def run(self, told_to_stop, started):
        code = 1
        try:
            watch = PairWatch(
                DirectData,
                *(root / "pairs" for root in self.roots),
                publish=lambda: tarn("cp", "--mirror", self.roots[0]),
                take_point=lambda: tarn("cp", self.roots[0]),
            )
            watch.start()
            os.write(started, b"x")
            rng = self.test.random
            # Not as fast as it can: the other side has the same two processors.
            while not select.select([told_to_stop], [], [], 0.01)[0]:
                (self.roots[0] / "load" / str(rng.randrange(20))).write_bytes(rng.randbytes(200_000))
            watch.stop()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def stop(self):
        os.close(self.stopping)
        self.test.assertEqual(os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1]), 0, "the load and what it saw")


class BadNetwork(TwoMachines):
    def setUp(self):
        super().setUp()
        self.exchange_keys()

    def begin(self, ping_seconds=PING_SECONDS, dead_seconds=DEAD_SECONDS, **more):
        # Who asks for a mountpoint asks all daemons with sockets in the usual place, and another machine has its own.
        self.mirror_socket = self.directory / "mirror.socket"
        mirror_options = ["--ping-interval", ping_seconds, "--dead-after", dead_seconds]
        mirror_options += ["--control", self.mirror_socket]
        primary_options = [f"ping_interval={ping_seconds}", f"dead_after={dead_seconds}"]
        self.start_both(primary_options=primary_options, mirror_options=mirror_options, **more)

    def mirror_status(self):
        return json.loads(tarn("status", "--json", self.mirror_socket).stdout)

    def mirror_sees_primary(self):
        return self.mirror_status()["mirrors"][0]["state"] == "live"

    def both_notice(self):
        """Both sides know within the time that they promise, and a second, that they have lost each other."""
        begin = time.monotonic()
        poll(lambda: self.peer()["state"] == "connecting", "the primary to notice")
        poll(lambda: not self.mirror_sees_primary(), "the mirror to notice")
        self.assertLess(time.monotonic() - begin, NOTICED_SECONDS_MAX)

    def assert_equal_since(self, healed, bytes_per_second=0):
        """Both sides have the same root, not much later than `healed`."""
        before = self.peer()["wire_bytes"]
        tarn("cp", "--mirror", self.primary.mountpoint, seconds=900)
        seconds = time.monotonic() - healed
        transfer_seconds = 1.1 * (self.peer()["wire_bytes"] - before) / bytes_per_second if bytes_per_second else 0
        self.assertLess(seconds, HEALED_SECONDS_MAX + transfer_seconds)
        primary, mirror = self.primary.status(), self.mirror_status()
        self.assertEqual((primary["cp"], primary["root"]), (mirror["cp"], mirror["root"]))
        print(f"  equal {seconds:.1f} s after it healed", flush=True)

    def assert_published_since(self, healed):
        """What there is now reaches the mirror in time, while the load goes on."""
        tarn("cp", "--mirror", self.primary.mountpoint)
        seconds = time.monotonic() - healed
        self.assertLess(seconds, HEALED_SECONDS_MAX)
        print(f"  published {seconds:.1f} s after it healed", flush=True)

    def end(self):
        self.assert_same_tree(self.primary.mountpoint, self.mirror.mountpoint)
        self.primary.unmount()
        self.mirror.terminate()
        self.assert_clean(self.image)
        self.assert_clean(self.directory / "mirror.tarnfs")


class LostPeer(BadNetwork):
    def test_the_link_goes_down_under_load(self):
        self.begin()
        load = Load(self)
        run("ip", "-n", "mirror", "link", "set", "cable", "down")
        down = time.monotonic()
        cp = self.primary.status()["cp"]
        self.both_notice()
        time.sleep(max(0, down + DOWN_SECONDS - time.monotonic()))
        peer = self.peer()
        self.assertGreater(self.primary.status()["cp"], cp + 2, "the primary goes on")
        self.assertGreater(peer["lag_cps"], 2)
        self.assertGreater(peer["lag_bytes"], 0)
        self.assertGreater(peer["lag_seconds"], DOWN_SECONDS - 1)
        run("ip", "-n", "mirror", "link", "set", "cable", "up")
        healed = time.monotonic()
        load.stop()
        self.assert_equal_since(healed)
        self.end()

    def test_a_side_stands_still_under_load(self):
        self.begin()
        load = Load(self)
        for daemon, other_notices in (
            (self.mirror, lambda: self.peer()["state"] == "connecting"),
            (self.primary, lambda: not self.mirror_sees_primary()),
        ):
            daemon.process.send_signal(signal.SIGSTOP)
            stopped = time.monotonic()
            poll(other_notices, f"the other side of {daemon.name} to notice")
            self.assertLess(time.monotonic() - stopped, NOTICED_SECONDS_MAX)
            time.sleep(max(0, stopped + STOPPED_SECONDS - time.monotonic()))
            daemon.process.send_signal(signal.SIGCONT)
            self.assert_published_since(time.monotonic())
        load.stop()
        self.assert_equal_since(time.monotonic())
        self.end()


class SlowNetwork(BadNetwork):
    """10 Mbit/s and 200 ms, with stalls and resets."""

    BYTES_PER_SECOND = 10e6 / 8
    DELAY_SECONDS = 0.1  # each way
    COPY_BYTES = 30_000_000 if FULL else 1_000_000
    TROUBLES = ("stall", "reset", "half") if FULL else ("half",)

    def setUp(self):
        super().setUp()
        self.set_rate("add", "10mbit")
        command = [sys.executable, Path(__file__).with_name("relay.py"), RELAY_PORT, f"{MIRROR_ADDRESS}:7410"]
        self.relay = subprocess.Popen(
            self.on("primary", *map(str, command), str(self.DELAY_SECONDS)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(self.relay.communicate)
        self.addCleanup(self.relay.kill)
        self.assertEqual(self.relay.stdout.readline(), "ready\n")
        self.begin(SLOW_PING_SECONDS, SLOW_DEAD_SECONDS, url=f"tcp://127.0.0.1:{RELAY_PORT}")

    def set_rate(self, change, rate):
        for machine in ("primary", "mirror"):
            limit = f"tbf rate {rate} burst 64kbit latency 400ms".split()
            run("tc", "-n", machine, "qdisc", change, "dev", "cable", "root", *limit)

    def tell(self, word):
        self.relay.stdin.write(f"{word}\n")
        self.relay.stdin.flush()
        self.assertEqual(self.relay.stdout.readline(), "done\n")

    def write(self, name):
        (self.primary.mountpoint / name).write_bytes(self.random.randbytes(self.COPY_BYTES))
        tarn("cp", self.primary.mountpoint)

    @unittest.skipUnless(FULL, "half a minute of waiting for a line")
    def test_a_mebibyte_takes_longer_than_a_peer_has_to_answer(self):
        tarn("cp", "--mirror", self.primary.mountpoint)
        self.set_rate("change", "1mbit")
        (self.primary.mountpoint / "file").write_bytes(self.random.randbytes(2_000_000))
        tarn("cp", "--mirror", self.primary.mountpoint)
        self.assertNotIn("has not answered", self.primary.log_text())
        self.end()

    def test_it_stalls_and_resets(self):
        tarn("cp", "--mirror", self.primary.mountpoint)
        self.write("first")
        self.assert_equal_since(time.monotonic(), self.BYTES_PER_SECOND)
        self.assertGreater(self.peer()["rtt_ms"], 2000 * self.DELAY_SECONDS)

        for round_number, trouble in enumerate(self.TROUBLES):
            self.write(f"file-{round_number}")
            self.assertGreater(self.peer()["lag_cps"], 0, "the blocks are on their way")
            self.tell(trouble)
            poll(lambda: self.peer()["state"] == "connecting", f"the primary to notice: {trouble}")
            self.tell("go")
            self.assert_equal_since(time.monotonic(), self.BYTES_PER_SECOND)
        self.end()


# Every failpoint, with what goes on when it is reached and how often it is passed before.
#   first: the first copy to an empty mirror. resumed: one that was cut off before. live: consistency points one after
#   the other. staged: a mirror that was away gets blocks for addresses that its state still uses. finished: such a
#   publish is finished by a new process.
POINTS = {
    "primary: Hello sent": ("first", 1),
    "primary: Welcome received": ("first", 1),
    "primary: Blocks sent": ("first", 4),
    "primary: Offer sent": ("resumed", 1),
    "primary: Root sent": ("first", 1),
    "primary: Published received": ("live", 2),
    "primary: before the root write": ("live", 3),
    "primary: after the root write": ("live", 3),
    "mirror: image half made": ("first", 1),
    "mirror: Hello let in": ("first", 1),
    "mirror: Blocks applied": ("first", 4),
    "mirror: before the root write": ("first", 1),
    "mirror: after the root write": ("live", 2),
    "mirror: before Published": ("live", 2),
    "mirror: after Published": ("live", 2),
    "mirror: Blocks staged": ("staged", 2),
    "mirror: before the commit record": ("staged", 1),
    "mirror: staging file written": ("staged", 1),
    "mirror: after the commit record": ("staged", 1),
    "mirror: staged state shown": ("staged", 1),
    "mirror: some staged blocks copied": ("staged", 2),
    "mirror: staged blocks copied": ("staged", 1),
    "mirror: after the root write of a staged state": ("staged", 1),
    "mirror: staging file removed": ("staged", 1),
    "mirror: at the start, before the root write": ("finished", 1),
    "mirror: at the start, after the root write": ("finished", 1),
}
DEFAULT_POINTS = 3


class KillPoints(TarnTest):
    def setUp(self):
        super().setUp()
        self.port = free_port()

    def primary_command(self, point=None, count=1):
        options = f"cp_interval=3600,mirror=tcp://127.0.0.1:{self.port}"
        return [*self.armed("tarnfs", point, count), "-f", "-o", options, self.image, self.make_directory("primary")]

    def start_primary(self, point=None, count=1):
        self.primary = self.start("tarnfs", self.primary_command(point, count), self.directory / "primary")

    def mirror_command(self, port, point, count):
        command = [*self.armed("tarn-mirrord", point, count), "-f", "--listen", f"tcp://127.0.0.1:{port}"]
        return [*command, "--image", self.mirror_image, "--mount", self.make_directory("mirror")]

    def start_mirror(self, point=None, count=1, port=None):
        command = self.mirror_command(port or self.port, point, count)
        self.mirror = self.start("tarn-mirrord", command, self.directory / "mirror")

    def armed(self, name, point, count):
        if point is None:
            return [program(name)]
        return ["env", f"TARNFS_TEST_FAILPOINT={point}:{count}", program(f"{name}-failpoints")]

    def step(self, size=300_000):
        """A new state, of which one file tells what the other has."""
        data = self.random.randbytes(size)
        (self.primary.mountpoint / "data").write_bytes(data)
        (self.primary.mountpoint / "digest").write_text(hashlib.sha256(data).hexdigest())
        tarn("cp", self.primary.mountpoint)

    def steps_until_it_dies(self, daemon):
        while daemon.process.poll() is None:
            try:
                self.step()
            except (OSError, AssertionError):
                if daemon is not self.primary:
                    raise
                daemon.process.wait(PATIENCE_SECONDS)

    def assert_whole(self):
        """What the mirror shows is nothing yet, or one of the states."""
        names = set(os.listdir(self.mirror.mountpoint))
        self.assertIn(names, (set(), {"data", "digest"}))
        if names:
            data = (self.mirror.mountpoint / "data").read_bytes()
            self.assertEqual(hashlib.sha256(data).hexdigest(), (self.mirror.mountpoint / "digest").read_text())

    def live(self, point, count):
        primary_dies = point.startswith("primary")
        self.start_mirror(*(() if primary_dies else (point, count)))
        self.start_primary(*((point, count) if primary_dies else ()))
        self.steps_until_it_dies(self.primary if primary_dies else self.mirror)

    def first(self, point, count):
        self.start_primary()
        self.step(6_000_000)
        if not point.startswith("primary"):
            self.start_mirror(point, count)
            return
        self.primary.unmount()
        self.start_mirror()
        run(*self.primary_command(point, count), expect=-signal.SIGKILL)  # perhaps before it has mounted
        detach(self.primary.mountpoint)

    def resumed(self, point, count):
        self.start_primary(point, count)
        self.step(6_000_000)
        self.start_mirror("mirror: Blocks applied", 4)
        self.mirror.wait(-signal.SIGKILL)
        self.mirror.kill()
        self.start_mirror()

    def staged(self, point, count):
        self.start_mirror()
        self.start_primary()
        self.step(3 << 20)
        tarn("cp", "--mirror", self.primary.mountpoint)
        self.mirror.terminate()
        for _ in range(5):
            self.step(12 << 20)
        self.start_mirror(point, count)

    def finished(self, point, count):
        self.staged("mirror: after the commit record", 1)
        self.mirror.wait(-signal.SIGKILL)
        self.mirror.kill()
        run(*self.mirror_command(self.port, point, count), expect=-signal.SIGKILL)

    def check(self, point):
        scenario, count = POINTS[point]
        self.image = self.make_volume(f"{point}.tarnfs", size="32M")
        self.mirror_image = self.directory / f"{point}.mirror.tarnfs"
        getattr(self, scenario)(point, count)
        if point.startswith("primary"):
            if scenario != "first":
                self.primary.wait(-signal.SIGKILL)
                self.assertIn(f"failpoint {point}", self.primary.new_log_text())
                self.primary.kill()
            self.assert_whole()
            self.start_primary()
        else:
            if scenario != "finished":
                self.mirror.wait(-signal.SIGKILL)
                self.assertIn(f"failpoint {point}", self.mirror.new_log_text())
                self.mirror.kill()
            if point == "mirror: some staged blocks copied":
                self.assert_refused_by_others()
            self.look_at_it_alone()
            self.start_mirror()
        restarted = time.monotonic()
        self.step()
        tarn("cp", "--mirror", self.primary.mountpoint)
        self.assertLess(time.monotonic() - restarted, HEALED_SECONDS_MAX)
        self.assert_whole()
        self.assertEqual(self.primary.status()["root"], self.mirror.status()["root"])
        self.assert_same_tree(self.primary.mountpoint, self.mirror.mountpoint)
        self.primary.unmount()
        self.mirror.terminate()
        self.assert_clean(self.image)
        self.assert_clean(self.mirror_image)

    def assert_refused_by_others(self):
        """What is half copied looks like a damaged volume to all but tarn-mirrord."""
        words = (self.mirror_image, "start tarn-mirrord on it once")
        self.assert_one_line_error(run(program("fsck.tarnfs"), "-n", self.mirror_image, expect=8), *words)
        command = [program("tarnfs"), "-f", "-o", "ro", self.mirror_image, self.make_directory("other")]
        result = run(*command, expect=1)
        self.assertIn(str(words[0]), result.stderr)
        self.assertIn(words[1], result.stderr)

    def look_at_it_alone(self):
        """The dead mirror comes up where no primary finds it."""
        self.start_mirror(port=free_port())
        self.assert_whole()
        published = self.mirror.status()["cp"] > 0
        self.mirror.terminate()
        if published:
            self.assert_clean(self.mirror_image)


def add_kill_tests():
    points = list(POINTS) if FULL else random.Random(SEED).sample(list(POINTS), DEFAULT_POINTS)
    for point in points:
        name = "test_kill_9_at__" + re.sub(r"\W+", "_", point)
        setattr(KillPoints, name, lambda test, point=point: test.check(point))


add_kill_tests()


class Failpoints(TarnTest):
    def test_they_are_all_tried_and_all_described(self):
        code = [path.read_text() for folder in ("common", "fs", "mirror") for path in (TOP / folder).rglob("*.cpp")]
        in_code = [name for text in code for name in re.findall(r'TARNFS_FAILPOINT\("([^"]+)"\)', text)]
        self.assertEqual(sorted(in_code), sorted(POINTS))
        described = re.findall(r"^\| `((?:primary|mirror): [^`]+)` \|", (TOP / "PROTOCOL.md").read_text(), re.MULTILINE)
        self.assertEqual(sorted(described), sorted(POINTS))

    def test_no_program_that_is_released_has_any(self):
        for name in ("tarnfs", "tarn-mirrord"):
            self.assertIn(b"TARNFS_TEST_FAILPOINT", Path(program(f"{name}-failpoints")).read_bytes())
            released = Path(program(name)).read_bytes()
            self.assertNotIn(b"TARNFS_TEST_FAILPOINT", released)
            for point in POINTS:
                self.assertNotIn(point.encode(), released)


if __name__ == "__main__":
    harness.main()
