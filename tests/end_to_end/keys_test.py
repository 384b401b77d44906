"""Keys: two machines, and who is refused."""

import harness
from harness import TarnTest, poll, program, run, tarn
from machines import URL, TwoMachines


class Keys(TwoMachines):
    def test_with_keys_it_works_and_a_key_that_is_removed_ends_it(self):
        self.exchange_keys()
        self.start_both()
        (self.primary.mountpoint / "file").write_bytes(b"content" * 100_000)
        tarn("cp", "--mirror", self.primary.mountpoint)
        self.assert_same_tree(self.primary.mountpoint, self.mirror.mountpoint)
        self.assertIs(self.peer()["encrypted"], True)
        self.assertIs(self.mirror.status()["mirrors"][0]["encrypted"], True)

        key = self.mirror_keys / "peers" / "primary"
        kept = key.read_text()
        key.unlink()
        poll(lambda: "does not let this machine in" in self.peer()["error"], "the primary to be refused")
        self.assertEqual(self.peer()["state"], "connecting")
        (self.primary.mountpoint / "file").write_bytes(b"more content" * 100_000)
        self.assertEqual((self.mirror.mountpoint / "file").stat().st_size, 700_000, "it is readable as it was")
        self.assertIn("is no longer among the peers' keys", self.mirror.log_text())

        key.write_text(kept)
        tarn("cp", "--mirror", self.primary.mountpoint)
        self.assert_same_tree(self.primary.mountpoint, self.mirror.mountpoint)
        self.primary.unmount()
        self.mirror.terminate()
        self.assert_clean(self.directory / "mirror.tarnfs")

    def test_without_keys_both_sides_refuse(self):
        self.exchange_keys()
        command, _ = self.mirror_command()
        result = run(*command, expect=1)
        self.assertIn("tarn keygen DIR", result.stderr)
        self.assertFalse((self.directory / "mirror.tarnfs").exists(), "nothing is made before")
        image = self.make_volume(size="64M")
        command, _ = self.primary_command(image, f"mirror={URL}")
        result = run(*command, expect=1)
        self.assertIn("tarn keygen DIR", result.stderr)
        self.assertIn(URL, result.stderr)

    def test_keys_that_others_can_reach_are_refused(self):
        self.exchange_keys()
        (self.mirror_keys / "secret.key").chmod(0o640)
        command, _ = self.mirror_command("--keys", self.mirror_keys)
        self.assertIn(f"chmod 600 {self.mirror_keys}/secret.key", run(*command, expect=1).stderr)
        self.primary_keys.chmod(0o777)
        command, _ = self.primary_command(self.make_volume(size="64M"), f"mirror={URL},keys={self.primary_keys}")
        self.assertIn(f"chmod go-w {self.primary_keys}", run(*command, expect=1).stderr)

    def test_keygen(self):
        directory = self.make_keys("once")
        secret = (directory / "secret.key").read_text()
        self.assertEqual(len(secret), 41)
        result = tarn("keygen", directory, expect=1)
        self.assert_one_line_error(result, directory, "is not overwritten")
        self.assertEqual((directory / "secret.key").read_text(), secret)
        tarn("keygen", expect=2)


class OnLoopback(TarnTest):
    def test_a_primary_without_keys_is_told_that_it_needs_some(self):
        keys = self.directory / "keys"
        tarn("keygen", keys)
        port = harness.free_port()
        mountpoint = self.make_directory("mirror")
        command = [program("tarn-mirrord"), "-f", "--listen", f"tcp://127.0.0.1:{port}", "--keys", keys]
        command += ["--image", self.directory / "mirror.tarnfs", "--mount", mountpoint]
        self.start("tarn-mirrord", command, mountpoint)
        primary = self.mount(self.make_volume(size="64M"), mirror=port)
        poll(lambda: "requires keys" in primary.status()["mirrors"][0]["error"], "the primary to be refused")
        self.assertIs(primary.status()["mirrors"][0]["encrypted"], False)
        primary.unmount()


if __name__ == "__main__":
    harness.main()
