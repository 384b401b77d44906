#include <arpa/inet.h>

#include <charconv>
#include <optional>

#include "mirror/channel/key_directory.h"
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

Status check_heartbeat(std::uint64_t ping_interval_ms, std::uint64_t dead_after_ms) {
  constexpr std::uint64_t kMinMs = 10;
  constexpr std::uint64_t kMaxMs = std::uint64_t{24} * 3600 * 1000;
  if (ping_interval_ms >= kMinMs && dead_after_ms <= kMaxMs && dead_after_ms / 2 >= ping_interval_ms) return {};
  return Error(
      ErrorCode::kInvalid,
      "leave at least 10 ms between two pings, and give a peer twice that time at least, and a day at most, to "
      "answer");
}

bool is_loopback_url(const std::string& url) {
  const auto parts = split(url);
  if (!parts) return false;
  // Numbers only: 127.example.org may be anywhere.
  in_addr address = {};
  if (::inet_pton(AF_INET, parts->host.c_str(), &address) == 1) return ntohl(address.s_addr) >> 24 == IN_LOOPBACKNET;
  return parts->host == "[::1]" || parts->host == "localhost";
}

Status check_keys(const std::string& url, const std::string& keys_directory) {
  if (!keys_directory.empty()) {
    TARNFS_TRY(check_curve());
    TARNFS_ASSIGN([[maybe_unused]] const SecretKey secret, read_secret_key(keys_directory));
    TARNFS_ASSIGN([[maybe_unused]] const PeerKeys peers, read_peer_keys(keys_directory));
    if (!peers.problems.empty()) return Error(ErrorCode::kInvalid, peers.problems.front());
    return {};
  }
  if (is_loopback_url(url)) return {};
  return Error(ErrorCode::kRefused, "without keys " + url +
                                        " is refused, because whoever is on the network could read and change "
                                        "everything; make keys on both machines with tarn keygen DIR, copy each "
                                        "public.key into the other's DIR/peers, and give keys=DIR to the mount and "
                                        "--keys DIR to tarn-mirrord");
}

}  // namespace tarnfs
