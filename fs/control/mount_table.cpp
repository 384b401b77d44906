#include "fs/control/mount_table.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <sstream>

namespace tarnfs {
namespace {

bool is_tarnfs(const MountEntry& entry) {
  return entry.type == kFileMountType || entry.type == kBlockDeviceMountType;
}

bool is_octal(char c) {
  return c >= '0' && c <= '7';
}

// The kernel writes blanks, tabs, newlines and backslashes as \ooo.
std::string unescape(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool escaped = text[i] == '\\' && i + 3 < text.size() && is_octal(text[i + 1]) && is_octal(text[i + 2]) &&
                         is_octal(text[i + 3]);
    if (!escaped) {
      result.push_back(text[i]);
      continue;
    }
    result.push_back(static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0')));
    i += 3;
  }
  return result;
}

// 36 35 98:0 ROOT MOUNTPOINT OPTIONS [optional fields] - TYPE SOURCE SUPER_OPTIONS
std::optional<MountEntry> parse_line(const std::string& line) {
  std::istringstream in(line);
  std::vector<std::string> fields{std::istream_iterator<std::string>(in), std::istream_iterator<std::string>()};
  const auto separator = std::find(fields.begin(), fields.end(), "-");
  if (separator - fields.begin() < 6 || fields.end() - separator < 3) return std::nullopt;
  const std::string options = fields.end() - separator > 3 ? separator[3] : "";
  return MountEntry{unescape(fields[4]), unescape(separator[1]), unescape(separator[2]), unescape(fields[3]), options};
}

}  // namespace

std::vector<MountEntry> parse_mount_table(std::string_view text) {
  std::vector<MountEntry> table;
  std::istringstream in{std::string(text)};
  std::string line;
  while (std::getline(in, line)) {
    if (auto entry = parse_line(line)) table.push_back(std::move(*entry));
  }
  return table;
}

std::vector<MountEntry> read_mount_table() {
  std::ifstream in("/proc/self/mountinfo");
  return parse_mount_table(std::string(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()));
}

std::optional<MountEntry> tarnfs_mount_of(const std::vector<MountEntry>& table, const std::string& image) {
  for (const MountEntry& entry : table) {
    if (is_tarnfs(entry) && entry.source == image) return entry;
  }
  return std::nullopt;
}

std::optional<MountEntry> tarnfs_mount_at(const std::vector<MountEntry>& table, const std::string& mountpoint) {
  const auto seen = std::find_if(table.rbegin(), table.rend(),
                                 [&](const MountEntry& entry) { return entry.mountpoint == mountpoint; });
  if (seen == table.rend() || !is_tarnfs(*seen)) return std::nullopt;
  return *seen;
}

bool is_mounted_at(const std::string& image, const std::string& mountpoint) {
  const auto seen = tarnfs_mount_at(read_mount_table(), mountpoint);
  return seen && seen->source == image;
}

}  // namespace tarnfs
