// Numbers as people write them on command lines.
//
// Thread safety: plain functions.
// Errors: kUsage with the text that was wrong.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/result.h"

namespace tarnfs {

// Digits with K, M, G or T behind them (powers of 1024), such as "20G".
Result<std::uint64_t> parse_size(std::string_view text);
// Seconds, with or without decimals, as milliseconds.
Result<std::uint64_t> parse_seconds_ms(std::string_view text);
// "12.5G": at most one decimal.
std::string format_size(std::uint64_t bytes);

}  // namespace tarnfs
