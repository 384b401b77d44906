#include "fs/fuse/caller.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

namespace tarnfs {
namespace {

constexpr std::uint32_t kNobody = std::numeric_limits<std::uint32_t>::max();  // FUSE_INVALID_UIDGID

struct Credentials {
  uid_t uid = kNobody;
  gid_t gid = kNobody;
  std::vector<gid_t> groups;
};

// The numbers for access to files are the last of the four of Uid and Gid in /proc/PID/status.
Credentials credentials_of_thread(pid_t thread) {
  Credentials found;
  if (thread == 0) return found;
  std::ifstream status("/proc/" + std::to_string(thread) + "/status");
  std::string line;
  while (std::getline(status, line)) {
    std::istringstream words(line);
    std::string name;
    words >> name;
    if (name != "Uid:" && name != "Gid:" && name != "Groups:") continue;
    std::vector<std::uint32_t> numbers;
    for (std::uint32_t number = 0; words >> number;) numbers.push_back(number);
    if (name == "Groups:") {
      found.groups = std::move(numbers);
    } else if (numbers.size() == 4) {
      (name == "Uid:" ? found.uid : found.gid) = numbers.back();
    }
  }
  return found;
}

}  // namespace

bool asks_as_root(fuse_req_t request) {
  const fuse_ctx* const context = fuse_req_ctx(request);
  return (context->uid != kNobody ? context->uid : credentials_of_thread(context->pid).uid) == 0;
}

bool asks_in_group(fuse_req_t request, gid_t group) {
  const fuse_ctx* const context = fuse_req_ctx(request);
  if (group == kNobody) return false;
  if (context->gid == group) return true;
  const Credentials found = credentials_of_thread(context->pid);
  return found.gid == group || std::find(found.groups.begin(), found.groups.end(), group) != found.groups.end();
}

}  // namespace tarnfs
