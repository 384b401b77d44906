#include <doctest/doctest.h>
#include <sys/mount.h>

#include <algorithm>

#include "fs/control/mount_table.h"
#include "fs/daemon/mount_options.h"
#include "fs/tools/mount_helper.h"
#include "fs/tools/remount.h"

using namespace tarnfs;

namespace {

MountOptions parsed(const std::string& list, bool is_root = true) {
  const auto options = parse_mount_options(list, is_root);
  REQUIRE_MESSAGE(options.ok(), (options.ok() ? "" : options.error().describe()));
  return *options;
}

bool has(const MountOptions& options, const std::string& name) {
  const auto& all = options.kernel_options;
  return std::find(all.begin(), all.end(), name) != all.end();
}

}  // namespace

TEST_CASE("defaults") {
  const MountOptions options = parsed("");
  CHECK(!options.read_only);
  CHECK(options.mirrors.empty());
  CHECK(options.cp_interval_ms == 5000);
  CHECK(options.dirty_limit_bytes == 256ULL << 20);
  CHECK(options.cache_limit_bytes == 128ULL << 20);
  CHECK(options.close_wait_ms == 5000);
  CHECK(has(options, "allow_other"));
  CHECK(!has(parsed("", false), "allow_other"));
  CHECK(has(parsed("allow_other", false), "allow_other"));
  CHECK(parsed("allow_root").kernel_options == std::vector<std::string>{"allow_root"});
}

TEST_CASE("what is write-protected is mounted read-only, unless a mirror is to follow it") {
  MountOptions options = parsed("");
  CHECK_FALSE(fall_back_to_read_only(options, false).value());
  CHECK_FALSE(options.read_only);
  CHECK(fall_back_to_read_only(options, true).value());
  CHECK(options.read_only);
  CHECK_FALSE(fall_back_to_read_only(options, true).value());
  options = parsed("mirror=tcp://a:1");
  CHECK(fall_back_to_read_only(options, true).error().code() == ErrorCode::kReadOnly);
  CHECK_FALSE(fall_back_to_read_only(options, false).value());
}

TEST_CASE("only what is read-only does without its journal") {
  MountOptions options = parsed("norecovery");
  CHECK_FALSE(options.replay_journal);
  CHECK(fall_back_to_read_only(options, false).error().code() == ErrorCode::kUsage);
  CHECK(fall_back_to_read_only(options, true).value());
  options = parsed("ro,norecovery");
  CHECK_FALSE(fall_back_to_read_only(options, false).value());
  CHECK(parsed("ro").replay_journal);
}

TEST_CASE("each option of its own") {
  const MountOptions options =
      parsed("mirror=tcp://a:1,cp_interval=0.5,dirty_limit=64M,cache=32M,mirror=tcp://b:2,close_wait=0,control=/c\\,d");
  CHECK(options.mirrors == std::vector<std::string>{"tcp://a:1", "tcp://b:2"});
  CHECK(options.cp_interval_ms == 500);
  CHECK(options.dirty_limit_bytes == 64ULL << 20);
  CHECK(options.cache_limit_bytes == 32ULL << 20);
  CHECK(options.close_wait_ms == 0);
  CHECK(options.control_path == "/c,d");
  CHECK(options.keys_directory.empty());
  CHECK(parsed("keys=/etc/tarnfs").keys_directory == "/etc/tarnfs");
  CHECK(parsed("").ping_interval_ms == 1000);
  CHECK(parsed("").dead_after_ms == 5000);
  CHECK(parsed("ping_interval=0.1,dead_after=0.5").ping_interval_ms == 100);
  CHECK(parsed("ping_interval=0.1,dead_after=0.5").dead_after_ms == 500);
  CHECK(parse_mount_options("ping_interval=3,dead_after=5", true).error().code() == ErrorCode::kUsage);
  CHECK(parse_mount_options("ping_interval=0", true).error().code() == ErrorCode::kUsage);
  CHECK(parsed("").on_disconnect == OnDisconnect::kDegrade);
  CHECK(parsed("on_disconnect=degrade").on_disconnect == OnDisconnect::kDegrade);
  CHECK(parsed("on_disconnect=block").on_disconnect == OnDisconnect::kBlock);
  CHECK(parsed("on_disconnect=readonly").on_disconnect == OnDisconnect::kReadOnly);
  CHECK(parse_mount_options("on_disconnect=panic", true).error().code() == ErrorCode::kUsage);
  CHECK(!parsed("").pin_size_bytes);
  CHECK(parsed("").pin_age_ms == 0);
  CHECK(parsed("pin_size=20G,pin_age=86400").pin_size_bytes == 20ULL << 30);
  CHECK(parsed("pin_size=20G,pin_age=86400").pin_age_ms == 86'400'000);
  CHECK(parsed("pin_size=none").pin_size_bytes == ~std::uint64_t{0});
  CHECK(parsed("pin_age=5,pin_age=none").pin_age_ms == 0);
  CHECK(parsed("pin_age=0").pin_age_ms == 0);
  CHECK(parsed("ro").read_only);
  CHECK(!parsed("ro,rw").read_only);
  CHECK(parsed("").access_times);
  CHECK(parsed("").io_uring == IoUring::kAuto);
  CHECK(parsed("io_uring=on").io_uring == IoUring::kOn);
  CHECK(parsed("io_uring=on,io_uring=off").io_uring == IoUring::kOff);
  CHECK(parsed("io_uring=off,io_uring=auto").io_uring == IoUring::kAuto);
  CHECK(!parsed("").checks_opens);
  CHECK(parsed("chattr=strict").checks_opens);
  CHECK(!parsed("chattr=strict,chattr=auto").checks_opens);
  CHECK(!parsed("noatime").access_times);
  CHECK(has(parsed("noatime"), "noatime"));
  CHECK(parsed("noatime,atime").access_times);
  CHECK(has(parsed("dev,suid,noexec"), "noexec"));
  CHECK(has(parsed("context=system_u:object_r:a_t"), "context=system_u:object_r:a_t"));
}

TEST_CASE("what is durable when it is answered: of sync and async the later one holds, dirsync has no opposite") {
  CHECK(!parsed("").durable);
  CHECK(!parsed("async").durable);
  CHECK(parsed("dirsync").durable == DurableScope::kNames);
  CHECK(parsed("sync").durable == DurableScope::kAll);
  CHECK(parsed("async,sync").durable == DurableScope::kAll);
  CHECK(!parsed("sync,async").durable);
  CHECK(parsed("async,dirsync").durable == DurableScope::kNames);
  CHECK(parsed("dirsync,async").durable == DurableScope::kNames);
  CHECK(parsed("sync,dirsync").durable == DurableScope::kAll);
  CHECK(parsed("dirsync,sync,async").durable == DurableScope::kNames);
  // The kernel has its part, and shows it.
  CHECK(has(parsed("dirsync"), "dirsync"));
  CHECK(has(parsed("sync"), "sync"));
  CHECK(parse_mount_options("dirsync=yes", true).error().code() == ErrorCode::kUsage);
}

TEST_CASE("what mount(8), systemd and fstab add is ignored") {
  const MountOptions options = parsed(
      "defaults,noauto,nofail,_netdev,user,user=joe,x-systemd.automount,X-mount.mkdir,comment=a,relatime,lazytime,"
      "fsname=other,,mode=async,on_disconnect=degrade");
  CHECK(options.kernel_options == std::vector<std::string>{"allow_other"});
}

TEST_CASE("wrong options are refused by name") {
  const struct {
    const char* list;
    const char* message;
  } cases[] = {
      {"frobnicate", "option frobnicate: unknown"},
      {"ro,frob=1", "option frob=1: unknown"},
      {"mirror=", "needs a value"},
      {"cp_interval=soon", "no number of seconds"},
      {"cp_interval=-1", "no number of seconds"},
      {"dirty_limit=1.5G", "no size"},
      {"dirty_limit=1M", "too small"},
      {"cache=0", "too small"},
      {"pin_size=0", "too small"},
      {"pin_size=much", "no size"},
      {"pin_age=old", "no number of seconds"},
      {"mode=sync", "not available yet"},
      {"mode=semisync", "not available yet"},
      {"mode=fast", "unknown value"},
      {"io_uring=yes", "give auto, on or off"},
      {"io_uring=", "needs a value"},
      {"chattr=on", "give auto or strict"},
      {"keys=", "needs a value"},
      {"state=snap", "not available yet"},
      {"ro,mirror=tcp://a:1", "exclude each other"},
  };
  for (const auto& test : cases) {
    CAPTURE(std::string(test.list));
    const auto options = parse_mount_options(test.list, true);
    REQUIRE(!options.ok());
    CHECK(options.error().code() == ErrorCode::kUsage);
    CHECK(options.error().message().find(test.message) != std::string::npos);
    CHECK(options.error().message().find('\n') == std::string::npos);
  }
}

TEST_CASE("mount -s leaves out what nobody knows, and nothing else") {
  CHECK(parsed("sloppy,frobnicate,frob=1,ro").read_only);
  CHECK(!parse_mount_options("sloppy,mode=sync", true).ok());
}

TEST_CASE("mount(8) gives device files and set-user-id unless told otherwise") {
  CHECK(options_for_mount("", false) == "dev,suid");
  CHECK(options_for_mount("rw,nosuid", false) == "rw,nosuid,dev");
  CHECK(options_for_mount("nodev,suid,nodevice", true) == "nodev,suid,nodevice,sloppy");
}

TEST_CASE("the flags of mount(2): the later of two options holds") {
  CHECK(mount_flags_of("") == 0);
  CHECK(mount_flags_of("remount,ro,cp_interval=5") == MS_RDONLY);
  CHECK(mount_flags_of("ro,nosuid,rw,dev") == MS_NOSUID);
  CHECK(mount_flags_of("dev,nodev,sync,noatime") == (MS_NODEV | MS_SYNCHRONOUS | MS_NOATIME));
  CHECK(has_mount_option("rw,remount", "remount"));
  CHECK(!has_mount_option("x-remount,remounted", "remount"));
}

TEST_CASE("a remount keeps sync and dirsync as they are, and says so to whoever wants it otherwise") {
  CHECK(remount_flags_of("ro,noatime", "rw,user_id=0").value() == (MS_RDONLY | MS_NOATIME));
  CHECK(remount_flags_of("ro", "rw,sync,user_id=0").value() == (MS_RDONLY | MS_SYNCHRONOUS));
  CHECK(remount_flags_of("rw,noatime", "rw,dirsync").value() == (MS_NOATIME | MS_DIRSYNC));
  CHECK(remount_flags_of("", "rw,sync,dirsync").value() == (MS_SYNCHRONOUS | MS_DIRSYNC));
  CHECK(remount_flags_of("sync", "rw,sync").value() == MS_SYNCHRONOUS);
  CHECK(remount_flags_of("dirsync", "rw,dirsync").value() == MS_DIRSYNC);
  CHECK(remount_flags_of("dirsync", "rw,sync").ok());  // has all that dirsync asks for
  CHECK(remount_flags_of("async", "rw").value() == 0);
  CHECK(remount_flags_of("async", "rw,dirsync").value() == MS_DIRSYNC);
  CHECK(remount_flags_of("sync,async", "rw").value() == 0);
  CHECK(remount_flags_of("async,sync", "rw,sync").value() == MS_SYNCHRONOUS);
  const struct {
    const char* options;
    const char* mounted;
    const char* refused;
  } cases[] = {{"sync", "rw", "option sync:"},
               {"ro,sync", "rw,dirsync", "option sync:"},
               {"dirsync", "rw", "option dirsync:"},
               {"dirsync,sync", "rw", "option sync:"},
               {"rw,sync,async", "rw,sync", "option async:"}};
  for (const auto& test : cases) {
    CAPTURE(std::string(test.options));
    const auto flags = remount_flags_of(test.options, test.mounted);
    REQUIRE(!flags.ok());
    CHECK(flags.error().code() == ErrorCode::kUnsupported);
    CHECK(flags.error().message().starts_with(test.refused));
    CHECK(flags.error().message().find("unmount it") != std::string::npos);
  }
}

TEST_CASE("the mount table") {
  const auto table = parse_mount_table(
      "22 1 0:20 / / rw - ext4 /dev/vda rw\n"
      "40 22 0:39 / /mnt/a\\040b rw,relatime shared:1 master:2 - fuse.tarnfs /images/x\\134y rw,sync,user_id=0\n"
      "41 22 0:40 / /mnt/m rw - fuse.tarnfs /images/m rw\n"
      "42 22 0:41 / /mnt/m rw - tmpfs none rw\n"
      "44 22 7:3 / /mnt/d rw - fuseblk.tarnfs /dev/loop3 rw,blksize=4096\n"
      "45 22 7:4 / /mnt/n rw - fuseblk /dev/loop4 rw\n"
      "broken\n"
      "43 22 0:41 / /x rw shared:1\n");
  REQUIRE(table.size() == 6);
  CHECK(tarnfs_mount_at(table, "/mnt/a b")->source == "/images/x\\y");
  CHECK(tarnfs_mount_of(table, "/images/x\\y")->mountpoint == "/mnt/a b");
  CHECK(tarnfs_mount_at(table, "/mnt/a b")->root == "/");
  CHECK(tarnfs_mount_at(table, "/mnt/a b")->options == "rw,sync,user_id=0");
  CHECK(!tarnfs_mount_at(table, "/"));
  CHECK(!tarnfs_mount_at(table, "/mnt/m"));  // covered
  CHECK(tarnfs_mount_of(table, "/images/m"));
  CHECK(tarnfs_mount_at(table, "/mnt/d")->type == "fuseblk.tarnfs");
  CHECK(!tarnfs_mount_of(table, "/dev/loop4"));
}
