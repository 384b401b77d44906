#include "fs/daemon/mount_options.h"

#include <algorithm>
#include <array>

#include "fs/control/text.h"
#include "mirror/channel/zmq_channel.h"

namespace tarnfs {
namespace {

constexpr std::uint64_t kDirtyLimitMinBytes = std::uint64_t{8} << 20;
constexpr std::uint64_t kCacheLimitMinBytes = std::uint64_t{1} << 20;
constexpr std::uint64_t kPinSizeMinBytes = std::uint64_t{1} << 20;

// What libfuse and mount(2) take. A later one overrides an earlier one.
constexpr std::array<std::string_view, 13> kKernelOptions = {"allow_other", "allow_root", "dev",    "nodev", "suid",
                                                             "nosuid",      "exec",       "noexec", "sync",  "async",
                                                             "atime",       "noatime",    "dirsync"};
constexpr std::array<std::string_view, 4> kKernelPrefixes = {"context=", "fscontext=", "defcontext=", "rootcontext="};

// For mount(8), systemd and fstab, or what is always so.
constexpr std::array<std::string_view, 27> kIgnored = {
    "defaults",    "auto",          "noauto",   "nofail",     "user",     "nouser",     "users",
    "owner",       "noowner",       "group",    "nogroup",    "_netdev",  "relatime",   "norelatime",
    "strictatime", "nostrictatime", "lazytime", "nolazytime", "diratime", "nodiratime", "default_permissions",
    "nonempty",    "silent",        "loud",     "mand",       "nomand",   "symfollow"};
constexpr std::array<std::string_view, 8> kIgnoredPrefixes = {
    "x-", "X-", "comment=", "user=", "uhelper=", "helper=", "fsname=", "subtype="};

template <std::size_t kCount>
bool is_one_of(const std::array<std::string_view, kCount>& all, std::string_view option) {
  return std::find(all.begin(), all.end(), option) != all.end();
}

template <std::size_t kCount>
bool has_prefix_of(const std::array<std::string_view, kCount>& all, std::string_view option) {
  return std::any_of(all.begin(), all.end(), [option](std::string_view p) { return option.starts_with(p); });
}

std::vector<std::string> split(std::string_view list) {
  std::vector<std::string> parts(1);
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (list[i] == ',') {
      parts.emplace_back();
    } else if (list[i] == '\\' && i + 1 < list.size()) {
      parts.back().push_back(list[++i]);
    } else {
      parts.back().push_back(list[i]);
    }
  }
  std::erase(parts, "");
  return parts;
}

Error wrong(std::string_view option, const std::string& why) {
  return Error(ErrorCode::kUsage, "option " + std::string(option) + ": " + why);
}

Status set_size(std::uint64_t& target, std::string_view option, std::string_view value, std::uint64_t min_bytes) {
  const auto size = parse_size(value);
  if (!size.ok()) return wrong(option, size.error().message());
  if (*size < min_bytes) return wrong(option, "it is too small; give at least " + format_size(min_bytes));
  target = *size;
  return {};
}

Status set_seconds(std::uint64_t& target_ms, std::string_view option, std::string_view value) {
  const auto milliseconds = parse_seconds_ms(value);
  if (!milliseconds.ok()) return wrong(option, milliseconds.error().message());
  target_ms = *milliseconds;
  return {};
}

template <class Value>
struct Choice {
  std::string_view name;
  Value value;
};

template <class Value, std::size_t kCount>
Status set_choice(Value& target, std::string_view option, std::string_view value,
                  const std::array<Choice<Value>, kCount>& choices) {
  std::string names;
  for (std::size_t i = 0; i < kCount; ++i) {
    if (choices[i].name == value) {
      target = choices[i].value;
      return {};
    }
    if (i > 0) names += i + 1 < kCount ? ", " : " or ";
    names += choices[i].name;
  }
  return wrong(option, "unknown value; give " + names);
}

Status set_pin_size(std::optional<std::uint64_t>& target, std::string_view option, std::string_view value) {
  std::uint64_t size_bytes = ~std::uint64_t{0};
  if (value != "none") TARNFS_TRY(set_size(size_bytes, option, value, kPinSizeMinBytes));
  target = size_bytes;
  return {};
}

Status set_pin_age(std::uint64_t& target_ms, std::string_view option, std::string_view value) {
  if (value != "none") return set_seconds(target_ms, option, value);
  target_ms = 0;
  return {};
}

Status check_mode(std::string_view option, std::string_view value) {
  if (value == "async") return {};
  if (value == "semisync" || value == "sync") return wrong(option, "not available yet in this version");
  return wrong(option, "unknown value; see tarnfs(8)");
}

constexpr std::array<Choice<IoUring>, 3> kIoUringChoices = {
    {{"auto", IoUring::kAuto}, {"on", IoUring::kOn}, {"off", IoUring::kOff}}};
constexpr std::array<Choice<OnDisconnect>, 3> kOnDisconnectChoices = {
    {{"degrade", OnDisconnect::kDegrade}, {"block", OnDisconnect::kBlock}, {"readonly", OnDisconnect::kReadOnly}}};
// Whether opens are checked from the start.
constexpr std::array<Choice<bool>, 2> kChattrChoices = {{{"auto", false}, {"strict", true}}};

Status set_valued(MountOptions& options, std::string_view option, std::string_view name, std::string_view value) {
  if (value.empty()) return wrong(option, "it needs a value");
  if (name == "mirror") {
    if (const Status url = check_connect_url(std::string(value)); !url.ok())
      return wrong(option, url.error().message());
    options.mirrors.emplace_back(value);
    return {};
  }
  if (name == "control") {
    options.control_path = value;
    return {};
  }
  if (name == "cp_interval") return set_seconds(options.cp_interval_ms, option, value);
  if (name == "ping_interval") return set_seconds(options.ping_interval_ms, option, value);
  if (name == "dead_after") return set_seconds(options.dead_after_ms, option, value);
  if (name == "close_wait") return set_seconds(options.close_wait_ms, option, value);
  if (name == "pin_size") return set_pin_size(options.pin_size_bytes, option, value);
  if (name == "pin_age") return set_pin_age(options.pin_age_ms, option, value);
  if (name == "dirty_limit") return set_size(options.dirty_limit_bytes, option, value, kDirtyLimitMinBytes);
  if (name == "cache") return set_size(options.cache_limit_bytes, option, value, kCacheLimitMinBytes);
  if (name == "mode") return check_mode(option, value);
  if (name == "on_disconnect") return set_choice(options.on_disconnect, option, value, kOnDisconnectChoices);
  if (name == "chattr") return set_choice(options.checks_opens, option, value, kChattrChoices);
  if (name == "io_uring") return set_choice(options.io_uring, option, value, kIoUringChoices);
  if (name == "keys") {
    options.keys_directory = value;
    return {};
  }
  if (name == "state") return wrong(option, "not available yet in this version");
  return wrong(option, "unknown; see tarnfs(8)");
}

Status set_option(MountOptions& options, const std::string& option) {
  if (option == "ro" || option == "rw") {
    options.read_only = option == "ro";
    return {};
  }
  if (option == "norecovery") {
    options.replay_journal = false;
    return {};
  }
  if (is_one_of(kKernelOptions, option) || has_prefix_of(kKernelPrefixes, option)) {
    options.kernel_options.push_back(option);
    if (option == "atime" || option == "noatime") options.access_times = option == "atime";
    return {};
  }
  if (is_one_of(kIgnored, option) || has_prefix_of(kIgnoredPrefixes, option)) return {};
  const std::size_t equals = option.find('=');
  if (equals == std::string::npos) return wrong(option, "unknown; see tarnfs(8)");
  const std::string_view text(option);
  return set_valued(options, option, text.substr(0, equals), text.substr(equals + 1));
}

// As the kernel keeps them: of sync and async the later one, and dirsync has no opposite.
std::optional<DurableScope> durable_scope_of(const std::vector<std::string>& kernel_options) {
  bool all = false;
  bool names = false;
  for (const std::string& option : kernel_options) {
    if (option == "sync" || option == "async") all = option == "sync";
    names = names || option == "dirsync";
  }
  if (all) return DurableScope::kAll;
  return names ? std::optional(DurableScope::kNames) : std::nullopt;
}

}  // namespace

Result<MountOptions> parse_mount_options(std::string_view list, bool is_root) {
  const std::vector<std::string> parts = split(list);
  // mount(8) -s: options that nobody knows are left out.
  const bool sloppy = std::find(parts.begin(), parts.end(), "sloppy") != parts.end();
  MountOptions options;
  for (const std::string& part : parts) {
    if (part == "sloppy") continue;
    const Status set = set_option(options, part);
    if (set.ok()) continue;
    if (sloppy && set.error().message().ends_with("unknown; see tarnfs(8)")) continue;
    return set.error();
  }
  if (options.read_only && !options.mirrors.empty()) {
    return Error(ErrorCode::kUsage, "options ro and mirror= exclude each other: a read-only mount changes nothing");
  }
  if (const Status timing = check_heartbeat(options.ping_interval_ms, options.dead_after_ms); !timing.ok()) {
    return Error(ErrorCode::kUsage, "options ping_interval and dead_after: " + timing.error().message());
  }
  options.durable = durable_scope_of(options.kernel_options);
  const auto& kernel = options.kernel_options;
  const bool allow_given = std::any_of(kernel.begin(), kernel.end(), [](auto& o) { return o.starts_with("allow_"); });
  if (is_root && !allow_given) options.kernel_options.emplace_back("allow_other");
  return options;
}

Result<bool> fall_back_to_read_only(MountOptions& options, bool write_protected) {
  const bool falls_back = write_protected && !options.read_only;
  if (falls_back && !options.mirrors.empty()) {
    return Error(ErrorCode::kReadOnly,
                 "it is write-protected, and what is read-only has nothing for a mirror; make it "
                 "writable, or leave out mirror=");
  }
  options.read_only = options.read_only || write_protected;
  if (!options.replay_journal && !options.read_only) {
    return Error(ErrorCode::kUsage, "option norecovery: without its journal a volume can only be read; give ro too");
  }
  return falls_back;
}

}  // namespace tarnfs
