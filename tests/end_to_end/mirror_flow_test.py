"""The flow to a mirror: pauses and limits, how far it is behind, and what becomes of writers while it is away."""

import errno
import json
import os
import subprocess
import threading
import time

import harness
from harness import TarnTest, free_port, poll, tarn


class Flow(TarnTest):
    def setUp(self):
        super().setUp()
        self.port = free_port()
        self.image = self.make_volume(size="256M")

    def both(self, options=""):
        self.mirror = self.start_mirror(self.port)
        self.primary = self.mount(self.image, options=options, mirror=self.port)
        tarn("cp", "--mirror", self.primary.mountpoint)
        return self.primary.mountpoint

    def peer(self):
        return self.primary.status()["mirrors"][0]

    def change(self, size=300_000):
        (self.primary.mountpoint / "file").write_bytes(self.random.randbytes(size))
        tarn("cp", self.primary.mountpoint)

    def assert_lag(self, begin, blocks_min):
        """The lag as it must be when the first change that is not there came at `begin` or just after."""
        peer, cp = self.peer(), self.primary.status()["cp"]
        self.assertEqual(peer["lag_cps"], cp - peer["published_cp"])
        self.assertGreaterEqual(peer["lag_bytes"], 4096 * blocks_min)
        self.assertLessEqual(peer["lag_seconds"], time.monotonic() - begin)
        return peer

    def test_pause_and_resume(self):
        source = self.both()
        tarn("pause", source)
        self.assertEqual(self.peer()["state"], "paused")
        begin = time.monotonic()
        self.change()
        after_first = time.monotonic()
        self.change()
        asked = time.monotonic()
        peer = self.assert_lag(begin, 2 * 300_000 // 4096)
        self.assertGreaterEqual(peer["lag_seconds"], asked - after_first)
        self.assert_one_line_error(tarn("cp", "--mirror", source, expect=1), "paused", "tarn resume")
        self.assertFalse((self.mirror.mountpoint / "file").exists())
        tarn("resume", source)
        tarn("cp", "--mirror", source)
        self.assert_same_tree(source, self.mirror.mountpoint)
        peer = self.peer()
        self.assertEqual((peer["state"], peer["lag_cps"], peer["lag_bytes"], peer["lag_seconds"]), ("live", 0, 0, 0))

    def test_the_lag_of_a_mirror_that_is_away(self):
        source = self.both()
        self.mirror.terminate()
        poll(lambda: self.peer()["state"] == "connecting", "the loss to be seen")
        begin = time.monotonic()
        self.change()
        self.assert_lag(begin, 300_000 // 4096)
        cp = self.primary.status()["cp"]
        self.primary.unmount()
        # A new mount knows nothing of the mirror: all of the volume may be lacking.
        self.primary = self.mount(self.image, mirror=self.port)
        status = self.primary.status()
        self.assertGreaterEqual(status["mirrors"][0]["lag_cps"], cp)
        self.assertEqual(status["mirrors"][0]["lag_bytes"], status["used_bytes"])
        self.assertGreaterEqual(status["mirrors"][0]["lag_seconds"], 0)
        self.mirror = self.start_mirror(self.port)
        tarn("cp", "--mirror", source)
        self.assertEqual(self.peer()["lag_bytes"], 0)

    def test_blocks_are_kept_for_a_mirror_that_is_away_and_given_up_at_the_limit(self):
        source = self.both("pin_size=4M")
        self.change(3_000_000)
        tarn("cp", "--mirror", source)
        self.mirror.terminate()
        poll(lambda: self.peer()["state"] == "connecting", "the loss to be seen")
        self.change(3_000_000)
        peer = self.peer()
        self.assertGreaterEqual(peer["held_bytes"], 3_000_000)
        self.assertEqual((peer["pins_lost"], peer["compare_due"]), (0, False))
        for _ in range(3):
            self.change(3_000_000)
        peer = self.peer()
        self.assertEqual((peer["held_bytes"], peer["pins_lost"], peer["compare_due"]), (0, 1, True))
        self.assertIn("given up 1 times, to be compared in full", tarn("status", source).stdout)
        self.assertEqual(self.primary.log_text().count("are kept no longer, as pin_size= says"), 1)
        self.mirror = self.start_mirror(self.port)
        tarn("cp", "--mirror", source)
        poll(lambda: not self.peer()["compare_due"], "the compare")
        self.assert_same_tree(source, self.mirror.mountpoint)
        self.assertEqual(self.peer()["pins_lost"], 1)
        self.mirror.terminate()
        self.assert_clean(self.directory / "mirror.tarnfs")

    def test_a_limit(self):
        source = self.both()
        tarn("limit", "200K", source)
        self.assertEqual(self.peer()["limit_bytes_per_second"], 200 << 10)
        self.assertIn("at most 200.0K per second", tarn("status", source).stdout)
        before = self.peer()["wire_bytes"]
        begin = time.monotonic()
        (source / "file").write_bytes(self.random.randbytes(30_000_000))
        tarn("cp", source)
        poll(lambda: self.peer()["wire_bytes"] - before > 200 << 10, "the first second's bytes")
        sent = self.peer()["wire_bytes"] - before
        self.assertLess(sent, (200 << 10) * (time.monotonic() - begin + 0.2))
        tarn("limit", "none", source)
        tarn("cp", "--mirror", source)
        self.assertEqual(self.peer()["limit_bytes_per_second"], 0)
        self.assert_one_line_error(tarn("limit", "much", source, expect=2), "RATE", "none")
        tarn("limit", source, expect=2)

    def test_commands_do_not_wait_for_a_mirror_that_others_wait_for(self):
        self.primary = self.mount(self.image, mirror=self.port, options="cp_interval=3600")
        source, before = self.primary.mountpoint, self.primary.status()["cp"]
        (source / "file").write_text("content")
        words = [harness.program("tarn"), "cp", "--mirror", source]
        waiting = [subprocess.Popen(words, stdout=subprocess.PIPE) for _ in range(20)]
        try:
            poll(lambda: self.primary.status()["cp"] > before, "the consistency point that they wait for")
            tarn("trim", source)
        finally:
            for process in waiting:
                process.kill()
        # What nobody waits for any more makes room.
        for _ in range(3):
            tarn("cp", source)
        self.mirror = self.start_mirror(self.port)
        answer = json.loads(tarn("cp", "--mirror", source).stdout)
        self.assertGreaterEqual(answer["seconds"], answer["durable_seconds"])
        for process in waiting:
            process.communicate()

    def test_without_a_mirror_there_is_nothing_to_pause(self):
        self.primary = self.mount(self.image)
        for command in (["pause"], ["resume"], ["limit", "1M"]):
            self.assert_one_line_error(tarn(*command, self.primary.mountpoint, expect=1), "has no mirror")

    def wait_for_words(self, words, count=1):
        """Until the primary has logged them so often: then it does as they say."""
        poll(lambda: self.primary.new_log_text().count(words) >= count, words)

    def test_on_disconnect_readonly(self):
        source = self.both("on_disconnect=readonly")
        (source / "file").write_text("content")
        refused, taken = "changes are refused", "takes changes again"
        before = self.primary.new_log_text().count(taken)
        self.mirror.kill()
        self.wait_for_words(refused, 2)  # the first was until it was there
        self.assert_errno(errno.EROFS, (source / "new").mkdir)
        self.assert_errno(errno.EROFS, os.unlink, source / "file")
        self.assertEqual((source / "file").read_text(), "content")
        tarn("pause", source)  # somebody takes it upon himself
        (source / "new").mkdir()
        tarn("resume", source)
        self.wait_for_words(refused, 3)
        self.assert_errno(errno.EROFS, (source / "newer").mkdir)
        self.mirror = self.start_mirror(self.port)
        self.wait_for_words(taken, before + 2)
        (source / "newer").mkdir()
        tarn("cp", "--mirror", source)
        self.assert_same_tree(source, self.mirror.mountpoint)

    def test_on_disconnect_block(self):
        source = self.both("on_disconnect=block")
        (source / "file").write_text("content")
        self.mirror.kill()
        self.wait_for_words("changes wait", 2)
        done = threading.Event()

        def change():
            (source / "new").mkdir()
            done.set()

        changing = threading.Thread(target=change)
        changing.start()
        self.assertEqual((source / "file").read_text(), "content")
        self.assertFalse(done.wait(1), "the change waits")
        self.mirror = self.start_mirror(self.port)
        changing.join(harness.PATIENCE_SECONDS)
        self.assertTrue(done.is_set())
        tarn("cp", "--mirror", source)
        self.assert_same_tree(source, self.mirror.mountpoint)
        # A mount that is to end does not wait for a mirror that is gone.
        self.mirror.kill()
        self.wait_for_words("changes wait", 3)
        self.primary.terminate()


if __name__ == "__main__":
    harness.main()
