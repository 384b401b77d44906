#include "fs/control/status_report.h"

#include <fmt/format.h>

#include <iterator>
#include <nlohmann/json.hpp>

#include "fs/control/text.h"

namespace tarnfs {
namespace {

using Json = nlohmann::ordered_json;

Json json_of(const PeerReport& peer) {
  Json json = {
      {"role", peer.role},
      {"url", peer.url},
      {"state", peer.state},
      {"mode", peer.mode},
      {"error", peer.error},
      {"encrypted", peer.encrypted},
      {"published_cp", peer.published_cp},
      {"lag_cps", peer.lag_cps},
      {"lag_bytes", peer.lag_bytes},
      {"lag_seconds", peer.lag_seconds},
      {"limit_bytes_per_second", peer.limit_bytes_per_second},
      {"held_bytes", peer.held_bytes},
      {"pins_lost", peer.pins_lost},
      {"compare_due", peer.compare_due},
      {"sent_bytes", peer.sent_bytes},
      {"wire_bytes", peer.wire_bytes},
      {"compression_ratio", peer.compression_ratio},
      {"rtt_ms", peer.rtt_ms},
  };
  if (peer.copy) {
    json["bytes_done"] = peer.copy->bytes_done;
    json["bytes_total"] = peer.copy->bytes_total;
    json["eta_seconds"] = peer.copy->eta_seconds;
  }
  return json;
}

Json json_of(const WaitSummary& wait) {
  return {{"count", wait.count},   {"waited_count", wait.waited_count}, {"p50_ns", wait.p50_ns},
          {"p99_ns", wait.p99_ns}, {"p999_ns", wait.p999_ns},           {"longest_ns", wait.longest_ns}};
}

WaitSummary wait_of(const Json& json) {
  WaitSummary wait;
  wait.count = json.value("count", std::uint64_t{0});
  wait.waited_count = json.value("waited_count", std::uint64_t{0});
  wait.p50_ns = json.value("p50_ns", std::uint64_t{0});
  wait.p99_ns = json.value("p99_ns", std::uint64_t{0});
  wait.p999_ns = json.value("p999_ns", std::uint64_t{0});
  wait.longest_ns = json.value("longest_ns", std::uint64_t{0});
  return wait;
}

PeerReport peer_of(const Json& json) {
  PeerReport peer;
  peer.role = json.value("role", "mirror");
  peer.url = json.value("url", "");
  peer.state = json.value("state", "");
  peer.mode = json.value("mode", "");
  peer.error = json.value("error", "");
  peer.encrypted = json.value("encrypted", false);
  peer.published_cp = json.value("published_cp", std::uint64_t{0});
  peer.lag_cps = json.value("lag_cps", std::uint64_t{0});
  peer.lag_bytes = json.value("lag_bytes", std::uint64_t{0});
  peer.lag_seconds = json.value("lag_seconds", 0.0);
  peer.limit_bytes_per_second = json.value("limit_bytes_per_second", std::uint64_t{0});
  peer.held_bytes = json.value("held_bytes", std::uint64_t{0});
  peer.pins_lost = json.value("pins_lost", std::uint64_t{0});
  peer.compare_due = json.value("compare_due", false);
  peer.sent_bytes = json.value("sent_bytes", std::uint64_t{0});
  peer.wire_bytes = json.value("wire_bytes", std::uint64_t{0});
  peer.compression_ratio = json.value("compression_ratio", 1.0);
  peer.rtt_ms = json.value("rtt_ms", 0.0);
  if (json.contains("bytes_total")) {
    peer.copy = CopyProgress{json.value("bytes_done", std::uint64_t{0}), json.value("bytes_total", std::uint64_t{0}),
                             json.value("eta_seconds", 0.0)};
  }
  return peer;
}

StatusReport report_of(const Json& json) {
  StatusReport report;
  report.uuid = json.at("volume").value("uuid", "");
  report.label = json.at("volume").value("label", "");
  report.role = json.at("role").get<std::string>();
  report.epoch = json.value("epoch", "");
  report.cp = json.value("cp", std::uint64_t{0});
  report.root = json.value("root", "");
  report.image = json.at("image").get<std::string>();
  report.mountpoint = json.value("mountpoint", "");
  report.size_bytes = json.value("size_bytes", std::uint64_t{0});
  report.used_bytes = json.value("used_bytes", std::uint64_t{0});
  report.journal_used_bytes = json.value("journal_used_bytes", std::uint64_t{0});
  report.dirty_bytes = json.value("dirty_bytes", std::uint64_t{0});
  report.cp_wait = wait_of(json.value("cp_wait", Json::object()));
  report.dirty_wait = wait_of(json.value("dirty_wait", Json::object()));
  report.cp_swap_longest_ns = json.value("cp_swap_longest_ns", std::uint64_t{0});
  report.cp_lock_longest_ns = json.value("cp_lock_longest_ns", std::uint64_t{0});
  report.fsync_cp_count = json.value("fsync_cp_count", std::uint64_t{0});
  report.transport = json.value("transport", "");
  report.kernel_asked_count = json.value("kernel_asked_count", std::uint64_t{0});
  report.kernel_late_count = json.value("kernel_late_count", std::uint64_t{0});
  report.errors = json.value("errors", std::uint64_t{0});
  report.read_only = json.value("read_only", false);
  report.closing = json.value("closing", false);
  report.stop_reason = json.value("stop_reason", "");
  for (const Json& peer : json.value("mirrors", Json::array())) report.mirrors.push_back(peer_of(peer));
  return report;
}

std::string text_of(const PeerReport& peer) {
  std::string text =
      fmt::format("  {:<11} {}  {}{}", peer.role, peer.url, peer.state, peer.encrypted ? ", encrypted" : "");
  if (peer.limit_bytes_per_second > 0) {
    text += fmt::format(", at most {} per second", format_size(peer.limit_bytes_per_second));
  }
  if (!peer.error.empty()) text += ": " + peer.error;
  text +=
      fmt::format("\n              published cp {}, behind by {} cps, {} bytes, {:.1f} s; sent {}, on the wire {}\n",
                  peer.published_cp, peer.lag_cps, format_size(peer.lag_bytes), peer.lag_seconds,
                  format_size(peer.sent_bytes), format_size(peer.wire_bytes));
  if (peer.held_bytes > 0 || peer.pins_lost > 0) {
    text +=
        fmt::format("              freed blocks kept for it {}, given up {} times{}\n", format_size(peer.held_bytes),
                    peer.pins_lost, peer.compare_due ? ", to be compared in full" : "");
  }
  if (peer.copy) {
    text += fmt::format("              copied {} of {}, {:.0f} s left\n", format_size(peer.copy->bytes_done),
                        format_size(peer.copy->bytes_total), peer.copy->eta_seconds);
  }
  return text;
}

}  // namespace

std::string to_json(const StatusReport& report) {
  Json mirrors = Json::array();
  for (const PeerReport& peer : report.mirrors) mirrors.push_back(json_of(peer));
  const Json json = {
      {"volume", {{"uuid", report.uuid}, {"label", report.label}}},
      {"role", report.role},
      {"epoch", report.epoch},
      {"cp", report.cp},
      {"root", report.root},
      {"image", report.image},
      {"mountpoint", report.mountpoint},
      {"size_bytes", report.size_bytes},
      {"used_bytes", report.used_bytes},
      {"journal_used_bytes", report.journal_used_bytes},
      {"dirty_bytes", report.dirty_bytes},
      {"cp_wait", json_of(report.cp_wait)},
      {"dirty_wait", json_of(report.dirty_wait)},
      {"cp_swap_longest_ns", report.cp_swap_longest_ns},
      {"cp_lock_longest_ns", report.cp_lock_longest_ns},
      {"fsync_cp_count", report.fsync_cp_count},
      {"transport", report.transport},
      {"kernel_asked_count", report.kernel_asked_count},
      {"kernel_late_count", report.kernel_late_count},
      {"errors", report.errors},
      {"read_only", report.read_only},
      {"closing", report.closing},
      {"stop_reason", report.stop_reason},
      {"mirrors", std::move(mirrors)},
  };
  // A label or path need not be UTF-8.
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<StatusReport> status_report_of(const std::string& json) {
  const Json parsed = Json::parse(json, nullptr, false);
  try {
    if (parsed.is_object()) return report_of(parsed);
  } catch (const Json::exception&) {
  }
  return Error(ErrorCode::kCorrupt, "the answer is no status of a volume; is the daemon of another version?");
}

std::string to_text(const StatusReport& report) {
  std::string text = fmt::format("{} {}{}\n", report.role, report.image, report.closing ? " (closing)" : "");
  const auto line = [&text](std::string_view name, const std::string& value) {
    fmt::format_to(std::back_inserter(text), "  {:<11} {}\n", name, value);
  };
  line("volume", report.uuid + (report.label.empty() ? "" : " " + report.label));
  if (!report.mountpoint.empty()) line("mounted on", report.mountpoint + (report.read_only ? " (read-only)" : ""));
  if (!report.mountpoint.empty()) line("transport", report.transport);
  line("state", fmt::format("cp {}, root {}, epoch {}", report.cp, report.root, report.epoch));
  line("space", fmt::format("{} of {} used, {} not yet written", format_size(report.used_bytes),
                            format_size(report.size_bytes), format_size(report.dirty_bytes)));
  if (report.errors > 0) line("errors", fmt::format("{}", report.errors));
  if (!report.stop_reason.empty()) line("stopped", report.stop_reason);
  for (const PeerReport& peer : report.mirrors) text += text_of(peer);
  return text;
}

}  // namespace tarnfs
