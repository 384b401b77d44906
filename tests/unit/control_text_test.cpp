#include <doctest/doctest.h>

#include "fs/control/protocol.h"
#include "fs/control/status_report.h"
#include "fs/control/text.h"

using namespace tarnfs;

TEST_CASE("sizes") {
  CHECK(*parse_size("0") == 0);
  CHECK(*parse_size("4096") == 4096);
  CHECK(*parse_size("4K") == 4096);
  CHECK(*parse_size("20g") == 20ULL << 30);
  CHECK(*parse_size("16777215T") == 16777215ULL << 40);
  for (const char* wrong : {"", "K", "1.5G", "-1", "4KB", "4 K", "16777216T", "99999999999999999999", "0x10"}) {
    CAPTURE(wrong);
    const auto parsed = parse_size(wrong);
    REQUIRE(!parsed.ok());
    CHECK(parsed.error().code() == ErrorCode::kUsage);
  }
  CHECK(format_size(0) == "0");
  CHECK(format_size(1023) == "1023");
  CHECK(format_size(1536) == "1.5K");
  CHECK(format_size(20ULL << 30) == "20.0G");
  CHECK(format_size(5ULL << 50) == "5120.0T");
}

TEST_CASE("seconds") {
  CHECK(*parse_seconds_ms("5") == 5000);
  CHECK(*parse_seconds_ms("0.25") == 250);
  CHECK(*parse_seconds_ms("0") == 0);
  for (const char* wrong : {"", "-1", "5s", "nan", "inf", "1e3", "99999999999"}) {
    CAPTURE(wrong);
    CHECK(!parse_seconds_ms(wrong).ok());
  }
}

TEST_CASE("requests and responses survive the wire") {
  const ControlRequest request{.command = "cp", .arguments = {{"mirror", "true"}, {"name", "a \"b\"\n\xff"}}};
  const std::string line = encode_request(request);
  CHECK(line.find('\n') == std::string::npos);
  const auto decoded = decode_request(line);
  REQUIRE(decoded.ok());
  CHECK(decoded->command == "cp");
  CHECK(decoded->has_flag("mirror"));
  CHECK(!decoded->has_flag("name"));
  CHECK(decoded->arguments.at("name") == "a \"b\"\n\xef\xbf\xbd");

  CHECK(*decode_response(encode_response(std::string("{\"cp\":7}"))) == "{\"cp\":7}");
  const auto refused = decode_response(encode_response(Error(ErrorCode::kNoSpace, "full")));
  REQUIRE(!refused.ok());
  CHECK(refused.error().code() == ErrorCode::kNoSpace);
  CHECK(refused.error().message() == "full");
}

TEST_CASE("lines that are none of ours give errors") {
  for (const char* wrong : {"", "x", "[]", "{}", "7", "{\"command\":7}", "{\"command\":\"\"}",
                            "{\"command\":\"a\",\"arguments\":[]}", "{\"command\":\"a\",\"arguments\":{\"b\":1}}"}) {
    CAPTURE(wrong);
    CHECK(!decode_request(wrong).ok());
  }
  CHECK(decode_request("{\"command\":\"a\"}").ok());
  for (const char* wrong : {"", "x", "[]", "{}", "{\"ok\":1}", "{\"ok\":false}", "{\"ok\":false,\"error\":7}"}) {
    CAPTURE(wrong);
    CHECK(!decode_response(wrong).ok());
  }
}

TEST_CASE("a status survives JSON, and its names stay") {
  StatusReport report;
  report.uuid = "12345678-0000-0000-0000-000000000000";
  report.label = "lake";
  report.role = "primary";
  report.epoch = "e";
  report.cp = 42;
  report.root = "00112233aabbccdd";
  report.image = "/images/lake.tarnfs";
  report.mountpoint = "/mnt/lake";
  report.size_bytes = std::uint64_t{1} << 50;
  report.mirrors.push_back({.url = "tcp://a:1", .state = "resyncing", .mode = "async", .published_cp = 41});
  report.mirrors.back().held_bytes = 8192;
  report.mirrors.back().pins_lost = 2;
  report.mirrors.back().compare_due = true;
  report.mirrors.back().copy = CopyProgress{10, 20, 1.5};
  const std::string json = to_json(report);
  for (const char* name : {"\"volume\":{\"uuid\":",
                           "\"label\":\"lake\"",
                           "\"role\":",
                           "\"epoch\":",
                           "\"cp\":42",
                           "\"root\":",
                           "\"image\":",
                           "\"size_bytes\":",
                           "\"used_bytes\":",
                           "\"journal_used_bytes\":",
                           "\"dirty_bytes\":",
                           "\"transport\":\"classic\"",
                           "\"errors\":0",
                           "\"mirrors\":[{",
                           "\"url\":",
                           "\"state\":",
                           "\"mode\":",
                           "\"encrypted\":false",
                           "\"published_cp\":41",
                           "\"lag_cps\":",
                           "\"lag_bytes\":",
                           "\"lag_seconds\":",
                           "\"held_bytes\":8192",
                           "\"pins_lost\":2",
                           "\"compare_due\":true",
                           "\"sent_bytes\":",
                           "\"wire_bytes\":",
                           "\"compression_ratio\":",
                           "\"rtt_ms\":",
                           "\"bytes_done\":10",
                           "\"bytes_total\":20",
                           "\"eta_seconds\":1.5"}) {
    CAPTURE(name);
    CHECK(json.find(name) != std::string::npos);
  }
  const auto parsed = status_report_of(json);
  REQUIRE(parsed.ok());
  CHECK(to_json(*parsed) == json);
  CHECK(to_text(*parsed).find("tcp://a:1  resyncing") != std::string::npos);
  CHECK(to_text(*parsed).find("kept for it 8.0K, given up 2 times, to be compared in full") != std::string::npos);
  CHECK(!status_report_of("{}").ok());
  CHECK(!status_report_of("{\"volume\":{},\"role\":7,\"image\":\"\"}").ok());
  CHECK(!status_report_of("no json").ok());
}
