#include "fs/control/protocol.h"

#include <nlohmann/json.hpp>

#include "fs/control/text.h"

namespace tarnfs {
namespace {

using Json = nlohmann::ordered_json;

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

ErrorCode code_named(std::string_view name) {
  for (int i = 0; i <= static_cast<int>(ErrorCode::kUsage); ++i) {
    if (name_of(static_cast<ErrorCode>(i)) == name) return static_cast<ErrorCode>(i);
  }
  return ErrorCode::kIo;
}

// Members that are missing or of another type are empty.
std::string text_at(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

}  // namespace

bool ControlRequest::has_flag(const std::string& name) const {
  const auto found = arguments.find(name);
  return found != arguments.end() && found->second == "true";
}

std::string encode_request(const ControlRequest& request) {
  Json arguments = Json::object();
  for (const auto& [name, value] : request.arguments) arguments[name] = value;
  return dump({{"command", request.command}, {"arguments", std::move(arguments)}});
}

Result<ControlRequest> decode_request(std::string_view line) {
  const Error wrong(ErrorCode::kInvalid, "the request is no JSON object with a command");
  const Json json = Json::parse(line, nullptr, false);
  if (!json.is_object()) return wrong;
  ControlRequest request;
  request.command = text_at(json, "command");
  if (request.command.empty()) return wrong;
  const auto arguments = json.find("arguments");
  if (arguments == json.end()) return request;
  if (!arguments->is_object()) return wrong;
  for (const auto& [name, value] : arguments->items()) {
    if (!value.is_string()) return wrong;
    request.arguments[name] = value.get<std::string>();
  }
  return request;
}

std::string encode_response(const Result<std::string>& result) {
  if (!result.ok()) {
    const Error& error = result.error();
    return dump({{"ok", false}, {"error", {{"code", name_of(error.code())}, {"message", error.describe()}}}});
  }
  Json json = Json::parse(*result, nullptr, false);
  TARNFS_ASSERT(!json.is_discarded());
  return dump({{"ok", true}, {"result", std::move(json)}});
}

Result<std::string> decode_response(std::string_view line) {
  const Error wrong(ErrorCode::kInvalid, "the response is no JSON object of a tarnfs daemon");
  const Json json = Json::parse(line, nullptr, false);
  if (!json.is_object()) return wrong;
  const auto ok = json.find("ok");
  if (ok == json.end() || !ok->is_boolean()) return wrong;
  if (ok->get<bool>()) return json.contains("result") ? dump(json.at("result")) : std::string("{}");
  const auto error = json.find("error");
  if (error == json.end() || !error->is_object()) return wrong;
  return Error(code_named(text_at(*error, "code")), text_at(*error, "message"));
}

Result<std::uint64_t> bytes_in(const ControlRequest& request, const std::string& name, std::uint64_t otherwise) {
  const auto found = request.arguments.find(name);
  if (found == request.arguments.end()) return otherwise;
  auto bytes = parse_size(found->second);
  if (!bytes.ok()) return Error(ErrorCode::kInvalid, name + ": " + bytes.error().message());
  return bytes;
}

Result<std::uint64_t> number_in(std::string_view result, const std::string& name) {
  const Json json = Json::parse(result, nullptr, false);
  const auto found = json.is_object() ? json.find(name) : json.end();
  if (found != json.end() && found->is_number_unsigned()) return found->get<std::uint64_t>();
  return Error(ErrorCode::kInvalid, "the daemon's answer has no " + name + "; use programs of one release");
}

}  // namespace tarnfs
