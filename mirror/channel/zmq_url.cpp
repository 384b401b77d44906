#include <charconv>
#include <optional>

#include "mirror/channel/zmq_channel.h"

namespace tarnfs {
namespace {

constexpr std::string_view kScheme = "tcp://";

struct HostAndPort {
  std::string host;
  std::uint32_t port = 0;
};

std::optional<HostAndPort> split(std::string_view url) {
  if (!url.starts_with(kScheme)) return std::nullopt;
  url.remove_prefix(kScheme.size());
  const std::size_t colon = url.rfind(':');
  if (colon == std::string_view::npos || colon == 0 || colon + 1 == url.size()) return std::nullopt;
  const std::string_view host = url.substr(0, colon);
  const std::string_view digits = url.substr(colon + 1);
  if (host.find_first_of(" \t/;@,") != std::string_view::npos) return std::nullopt;
  const bool bracketed = host.front() == '[' && host.back() == ']';
  if (host.find(':') != std::string_view::npos && !bracketed) return std::nullopt;
  HostAndPort parts;
  parts.host = std::string(host);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), parts.port);
  if (error != std::errc{} || end != digits.data() + digits.size() || parts.port > 65535) return std::nullopt;
  return parts;
}

Error unusable(const std::string& url, const std::string& want) {
  return Error(ErrorCode::kInvalid, "the address \"" + url + "\" cannot be used; give " + want);
}

}  // namespace

Status check_connect_url(const std::string& url) {
  const auto parts = split(url);
  if (!parts || parts->port == 0 || parts->host == "*")
    return unusable(url, "tcp://HOST:PORT with a port of 1 to 65535");
  return {};
}

Status check_listen_url(const std::string& url) {
  if (!split(url)) return unusable(url, "tcp://ADDRESS:PORT of this machine with a port of 0 (any) to 65535");
  return {};
}

bool is_loopback_url(const std::string& url) {
  const auto parts = split(url);
  return parts && (parts->host.starts_with("127.") || parts->host == "[::1]" || parts->host == "localhost");
}

}  // namespace tarnfs
