// The lines on a control socket: a JSON object each, the request from the client and the response from the server.
//
//   {"command":"cp","arguments":{"mirror":"true"}}
//   {"ok":true,"result":{...}}
//   {"ok":false,"error":{"code":"busy","message":"..."}}
//
// Thread safety: plain functions.
// Errors: kInvalid for a line that is none of these; the other side may be anybody.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "common/result.h"

namespace tarnfs {

inline constexpr std::size_t kControlRequestMaxBytes = std::size_t{64} << 10;
inline constexpr std::size_t kControlResponseMaxBytes = std::size_t{16} << 20;

struct ControlRequest {
  std::string command;
  std::map<std::string, std::string> arguments;
  std::function<bool()> caller_is_gone = nullptr;  // not on the wire: the server says it to a command that waits

  bool is_abandoned() const { return caller_is_gone && caller_is_gone(); }
  // Is the argument there with the value "true"?
  bool has_flag(const std::string& name) const;
};

// Without the newline at the end.
std::string encode_request(const ControlRequest& request);
Result<ControlRequest> decode_request(std::string_view line);
// `result` holds a JSON text, or the error that the client will get.
std::string encode_response(const Result<std::string>& result);
// The JSON text of the result, or the error that the server sent.
Result<std::string> decode_response(std::string_view line);

// An argument of a request that is a number of bytes; `otherwise` when it is missing.
Result<std::uint64_t> bytes_in(const ControlRequest& request, const std::string& name, std::uint64_t otherwise);
// A member of a result that is a number. kInvalid when there is none.
Result<std::uint64_t> number_in(std::string_view result, const std::string& name);

}  // namespace tarnfs
