#include "fs/control/text.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <limits>

namespace tarnfs {
namespace {

constexpr std::string_view kUnits = "KMGT";
constexpr double kSecondsMax = 1e9;

Error wrong_size(std::string_view text) {
  return Error(ErrorCode::kUsage, fmt::format("\"{}\" is no size; write digits and K, M, G or T, such as 20G", text));
}

}  // namespace

Result<std::uint64_t> parse_size(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return wrong_size(text);
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  if (unit.empty()) return value;
  const std::size_t index = kUnits.find(static_cast<char>(std::toupper(static_cast<unsigned char>(unit.front()))));
  if (unit.size() != 1 || index == std::string_view::npos) return wrong_size(text);
  const unsigned shift = 10 * (static_cast<unsigned>(index) + 1);
  if (value > (std::numeric_limits<std::uint64_t>::max() >> shift)) return wrong_size(text);
  return value << shift;
}

Result<std::uint64_t> parse_seconds_ms(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  const bool whole = error == std::errc() && end == text.data() + text.size() && !text.empty();
  if (!whole || std::isnan(value) || value < 0 || value > kSecondsMax) {
    return Error(ErrorCode::kUsage, fmt::format("\"{}\" is no number of seconds, such as 5 or 0.5", text));
  }
  return static_cast<std::uint64_t>(std::llround(value * 1000));
}

std::string format_size(std::uint64_t bytes) {
  double value = static_cast<double>(bytes);
  std::string unit;
  for (const char next : kUnits) {
    if (value < 1024) break;
    value /= 1024;
    unit = next;
  }
  return unit.empty() ? fmt::format("{}", bytes) : fmt::format("{:.1f}{}", value, unit);
}

}  // namespace tarnfs
