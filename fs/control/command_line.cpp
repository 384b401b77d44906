#include "fs/control/command_line.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>

namespace tarnfs {

struct CommandLine::Parser {
  std::unique_ptr<CLI::App> owned;  // of the program itself
  CLI::App* app = nullptr;          // or a command of another one
  std::string program;
};

CommandLine::CommandLine(const std::string& program, const std::string& description)
    : parser_(std::make_unique<Parser>()) {
  parser_->owned = std::make_unique<CLI::App>(description, program);
  parser_->app = parser_->owned.get();
  parser_->program = program;
  parser_->app->set_version_flag("-V,--version", program + " " TARNFS_VERSION);
}

CommandLine::CommandLine(std::unique_ptr<Parser> parser) : parser_(std::move(parser)) {}

CommandLine::~CommandLine() = default;

void CommandLine::flag(const std::string& names, bool& value, const std::string& help) {
  parser_->app->add_flag(names, value, help);
}

void CommandLine::option(const std::string& names, std::string& value, const std::string& value_name,
                         const std::string& help) {
  parser_->app->add_option(names, value, help)->option_text(value_name);
}

void CommandLine::list(const std::string& names, std::vector<std::string>& values, const std::string& value_name,
                       const std::string& help) {
  parser_->app->add_option(names, values, help)->option_text(value_name)->allow_extra_args(false);
}

void CommandLine::argument(const std::string& name, std::string& value, const std::string& help, bool required) {
  parser_->app->add_option(name, value, help)->required(required)->option_text(" ");
}

CommandLine& CommandLine::command(const std::string& name, const std::string& description, std::string& chosen) {
  auto parser = std::make_unique<Parser>();
  parser->app = parser_->app->add_subcommand(name, description);
  parser->app->callback([&chosen, name] { chosen = name; });
  parser_->app->require_subcommand(1);
  commands_.push_back(std::unique_ptr<CommandLine>(new CommandLine(std::move(parser))));
  return *commands_.back();
}

std::optional<int> CommandLine::parse(int argc, char** argv) {
  try {
    parser_->app->parse(argc, argv);
    return std::nullopt;
  } catch (const CLI::Success& help_or_version) {
    return parser_->app->exit(help_or_version, std::cout, std::cerr);
  } catch (const CLI::ParseError& error) {
    std::string message = error.what();
    std::replace(message.begin(), message.end(), '\n', ' ');
    return tell_failure(parser_->program, Error(ErrorCode::kUsage, message + "; see " + parser_->program + " --help"));
  }
}

int tell_failure(const std::string& program, const Error& error) {
  std::fprintf(stderr, "%s: %s\n", program.c_str(), error.describe().c_str());
  return error.code() == ErrorCode::kUsage ? kExitUsage : kExitFailed;
}

}  // namespace tarnfs
