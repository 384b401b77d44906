// Command lines of all programs: --help, --version and one-line errors, alike everywhere. CLI11 is behind the .cpp.
//
// Thread safety: one thread.
// Ownership: the variables given to flag(), option() and so on must outlive parse().
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/result.h"

namespace tarnfs {

inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;

class CommandLine {
 public:
  // `program` stands in front of errors.
  CommandLine(const std::string& program, const std::string& description);
  ~CommandLine();
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  // `names` as in "-f,--foreground".
  void flag(const std::string& names, bool& value, const std::string& help);
  void option(const std::string& names, std::string& value, const std::string& value_name, const std::string& help);
  // May be given several times.
  void list(const std::string& names, std::vector<std::string>& values, const std::string& value_name,
            const std::string& help);
  void argument(const std::string& name, std::string& value, const std::string& help, bool required = true);
  // A word of its own with its own options, such as "status"; one of them must be given. Sets `chosen` to its name.
  CommandLine& command(const std::string& name, const std::string& description, std::string& chosen);

  // Nothing when the program is to go on, otherwise its exit code: after --help, --version, or an error that was told.
  std::optional<int> parse(int argc, char** argv);

 private:
  struct Parser;
  explicit CommandLine(std::unique_ptr<Parser> parser);

  std::unique_ptr<Parser> parser_;
  std::vector<std::unique_ptr<CommandLine>> commands_;
};

// Tells an error as one line on standard error and returns the exit code that belongs to it.
int tell_failure(const std::string& program, const Error& error);

}  // namespace tarnfs
