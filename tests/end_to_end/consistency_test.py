#!/usr/bin/env python3
"""Every state that the mirror shows is one point in time of the primary: pairs.py says the exact rule."""

import harness
import pairs
from harness import TarnTest, free_port, poll, tarn

STATES_SEEN_MIN = 2000 if harness.FULL else 300
SECONDS_MAX = 600 if harness.FULL else 120


class Consistency(TarnTest):
    def watch(self, kind):
        port = free_port()
        mirror = self.start_mirror(port)
        primary = self.mount(self.make_volume(size="1G"), mirror=port)
        watch = pairs.PairWatch(
            kind,
            primary.mountpoint,
            mirror.mountpoint,
            publish=lambda: tarn("cp", "--mirror", primary.mountpoint),
            take_point=lambda: tarn("cp", primary.mountpoint),
        )
        watch.start()
        try:
            poll(
                lambda: watch.states_seen >= STATES_SEEN_MIN or watch.failures,
                f"{STATES_SEEN_MIN} published states to be seen",
                SECONDS_MAX,
            )
        finally:
            watch.stop()
        print(f"{watch.states_seen} states seen, {watch.reads_undisturbed} pairs read within one", flush=True)
        self.assertGreater(watch.reads_undisturbed, 0)
        tarn("cp", "--mirror", primary.mountpoint)
        self.assert_same_tree(primary.mountpoint, mirror.mountpoint)

    def test_content_read_through_the_page_cache(self):
        self.watch(pairs.DirectData)

    def test_content_read_directly_from_files_that_stay_open(self):
        self.watch(pairs.DirectReads)

    def test_attributes(self):
        self.watch(pairs.Attributes)

    def test_names(self):
        self.watch(pairs.Names)


if __name__ == "__main__":
    harness.main()
