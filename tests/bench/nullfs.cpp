// tarnfs_bench_nullfs: what FUSE costs when the file system does nothing. It keeps names, modes and sizes in memory and
// throws data away; what it cannot do, no file system in user space can.
//
//   tarnfs_bench_nullfs -f [-o OPTIONS] MOUNTPOINT
//
// Invariants
// 1. A node's number is its address, but for the root: a request finds its node without a table.
// 2. Nodes are never freed: the benchmark ends before that matters, and no request pays for counting references.
// 3. No lock is shared by all requests: each directory has its own. Renames take both in the order of their addresses.
//
// FUSE over io_uring is asked for where the kernel has it and libfuse knows it (3.18).
#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace {

constexpr double kTimeoutSeconds = 86400.0;
constexpr std::size_t kTransferBytesMax = 1 << 20;

// Set before the first request.
std::atomic<bool> opens_by_kernel{false};

struct Node {
  explicit Node(mode_t new_mode) : mode(new_mode) {}

  std::atomic<mode_t> mode;
  std::atomic<off_t> size{0};
  std::shared_mutex names_mutex;
  std::unordered_map<std::string, Node*> names;  // of a directory; under names_mutex
};

Node* root_node() {
  static Node root(S_IFDIR | 0755);
  return &root;
}

// The kernel hands back the numbers that it was given: addresses of nodes.
Node* node_of(fuse_ino_t number) {
  return number == FUSE_ROOT_ID ? root_node() : reinterpret_cast<Node*>(number);  // NOLINT(performance-no-int-to-ptr)
}

fuse_ino_t number_of(const Node* node) {
  return node == root_node() ? FUSE_ROOT_ID : reinterpret_cast<fuse_ino_t>(node);
}

struct stat attributes_of(const Node* node) {
  struct stat attributes {};
  attributes.st_ino = number_of(node);
  attributes.st_mode = node->mode;
  attributes.st_nlink = 1;
  attributes.st_size = node->size;
  attributes.st_blksize = 4096;
  return attributes;
}

// A null node stands for a name that is known not to exist.
fuse_entry_param entry_of(const Node* node) {
  fuse_entry_param entry{};
  entry.entry_timeout = kTimeoutSeconds;
  entry.attr_timeout = kTimeoutSeconds;
  if (node != nullptr) {
    entry.ino = number_of(node);
    entry.attr = attributes_of(node);
  }
  return entry;
}

Node* find_name(fuse_ino_t parent, const char* name) {
  Node* const directory = node_of(parent);
  const std::shared_lock lock(directory->names_mutex);
  const auto found = directory->names.find(name);
  return found == directory->names.end() ? nullptr : found->second;
}

Node* add_name(fuse_ino_t parent, const char* name, mode_t mode) {
  auto node = std::make_unique<Node>(mode);
  Node* const directory = node_of(parent);
  const std::unique_lock lock(directory->names_mutex);
  return directory->names[name] = node.release();
}

void on_init(void* /*user*/, fuse_conn_info* connection) {
  connection->want |= connection->capable & (FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_PARALLEL_DIROPS);
  connection->want &= ~static_cast<unsigned>(FUSE_CAP_AUTO_INVAL_DATA);  // nobody else changes anything
  connection->max_write = kTransferBytesMax;
  connection->max_background = 64;
  opens_by_kernel = (connection->capable & FUSE_CAP_NO_OPEN_SUPPORT) != 0;
}

void on_lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
  const fuse_entry_param entry = entry_of(find_name(parent, name));
  fuse_reply_entry(request, &entry);
}

void on_getattr(fuse_req_t request, fuse_ino_t number, fuse_file_info* /*file*/) {
  const struct stat attributes = attributes_of(node_of(number));
  fuse_reply_attr(request, &attributes, kTimeoutSeconds);
}

void on_setattr(fuse_req_t request, fuse_ino_t number, struct stat* wanted, int which, fuse_file_info* /*file*/) {
  Node* const node = node_of(number);
  if ((which & FUSE_SET_ATTR_MODE) != 0) node->mode = wanted->st_mode;
  if ((which & FUSE_SET_ATTR_SIZE) != 0) node->size = wanted->st_size;
  const struct stat attributes = attributes_of(node);
  fuse_reply_attr(request, &attributes, kTimeoutSeconds);
}

void on_mkdir(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode) {
  const fuse_entry_param entry = entry_of(add_name(parent, name, S_IFDIR | mode));
  fuse_reply_entry(request, &entry);
}

void on_create(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* file) {
  const fuse_entry_param entry = entry_of(add_name(parent, name, S_IFREG | mode));
  file->keep_cache = 1;
  fuse_reply_create(request, &entry, file);
}

void on_remove(fuse_req_t request, fuse_ino_t parent, const char* name) {
  Node* const directory = node_of(parent);
  {
    const std::unique_lock lock(directory->names_mutex);
    directory->names.erase(name);
  }
  fuse_reply_err(request, 0);
}

void on_rename(fuse_req_t request, fuse_ino_t from, const char* name, fuse_ino_t to, const char* new_name,
               unsigned flags) {
  Node* const source = node_of(from);
  Node* const target = node_of(to);
  if (flags != 0) {
    fuse_reply_err(request, EINVAL);
    return;
  }
  std::unique_lock first((source < target ? source : target)->names_mutex);
  std::unique_lock<std::shared_mutex> second;
  if (source != target) second = std::unique_lock((source < target ? target : source)->names_mutex);
  const auto found = source->names.find(name);
  if (found == source->names.end()) {
    fuse_reply_err(request, ENOENT);
    return;
  }
  Node* const node = found->second;
  source->names.erase(found);
  target->names[new_name] = node;
  first.unlock();
  if (second.owns_lock()) second.unlock();
  fuse_reply_err(request, 0);
}

// Where the kernel can do without, it opens files by itself after the first answer.
void on_open(fuse_req_t request, fuse_ino_t /*number*/, fuse_file_info* file) {
  if (opens_by_kernel) {
    fuse_reply_err(request, ENOSYS);
    return;
  }
  file->keep_cache = 1;
  fuse_reply_open(request, file);
}

void on_read(fuse_req_t request, fuse_ino_t number, std::size_t size, off_t offset, fuse_file_info* /*file*/) {
  static const std::vector<char> zeros(kTransferBytesMax);
  const off_t end = node_of(number)->size;
  const std::size_t rest = offset < end ? static_cast<std::size_t>(end - offset) : 0;
  fuse_reply_buf(request, zeros.data(), std::min({size, rest, zeros.size()}));
}

// The data are in memory already, one copy away from the writer, as for any file system that wants to see them.
void on_write(fuse_req_t request, fuse_ino_t number, const char* /*data*/, std::size_t size, off_t offset,
              fuse_file_info* /*file*/) {
  Node* const node = node_of(number);
  const off_t end = offset + static_cast<off_t>(size);
  off_t known = node->size;
  while (known < end && !node->size.compare_exchange_weak(known, end)) {
  }
  fuse_reply_write(request, size);
}

void on_fsync(fuse_req_t request, fuse_ino_t /*number*/, int /*data_only*/, fuse_file_info* /*file*/) {
  fuse_reply_err(request, 0);
}

using Listing = std::vector<std::pair<std::string, Node*>>;

void on_opendir(fuse_req_t request, fuse_ino_t number, fuse_file_info* file) {
  Node* const directory = node_of(number);
  auto listing = std::make_unique<Listing>(Listing{{".", directory}, {"..", directory}});
  {
    const std::shared_lock lock(directory->names_mutex);
    listing->insert(listing->end(), directory->names.begin(), directory->names.end());
  }
  file->fh = reinterpret_cast<std::uintptr_t>(listing.release());
  fuse_reply_open(request, file);
}

void on_readdir(fuse_req_t request, fuse_ino_t /*number*/, std::size_t size, off_t offset, fuse_file_info* file) {
  const auto& listing = *reinterpret_cast<Listing*>(file->fh);  // NOLINT(performance-no-int-to-ptr)
  std::vector<char> buffer(size);
  std::size_t used = 0;
  for (auto i = static_cast<std::size_t>(offset); i < listing.size(); ++i) {
    const struct stat attributes = attributes_of(listing[i].second);
    const std::size_t needed = fuse_add_direntry(request, buffer.data() + used, size - used, listing[i].first.c_str(),
                                                 &attributes, static_cast<off_t>(i + 1));
    if (needed > size - used) break;
    used += needed;
  }
  fuse_reply_buf(request, buffer.data(), used);
}

void on_releasedir(fuse_req_t request, fuse_ino_t /*number*/, fuse_file_info* file) {
  delete reinterpret_cast<Listing*>(file->fh);  // NOLINT(performance-no-int-to-ptr)
  fuse_reply_err(request, 0);
}

fuse_lowlevel_ops operations() {
  fuse_lowlevel_ops ops{};
  ops.init = on_init;
  ops.lookup = on_lookup;
  ops.getattr = on_getattr;
  ops.setattr = on_setattr;
  ops.mkdir = on_mkdir;
  ops.create = on_create;
  ops.unlink = on_remove;
  ops.rmdir = on_remove;
  ops.rename = on_rename;
  ops.open = on_open;
  ops.read = on_read;
  ops.write = on_write;
  ops.fsync = on_fsync;
  ops.opendir = on_opendir;
  ops.readdir = on_readdir;
  ops.releasedir = on_releasedir;
  return ops;
}

bool has_io_uring() {
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18)
  std::FILE* const parameter = std::fopen("/sys/module/fuse/parameters/enable_uring", "re");
  if (parameter == nullptr) return false;
  const int answer = std::fgetc(parameter);
  std::fclose(parameter);
  return answer == 'Y';
#else
  return false;
#endif
}

int serve(fuse_session* session, const char* mountpoint) {
  if (fuse_set_signal_handlers(session) != 0) return 1;
  if (fuse_session_mount(session, mountpoint) != 0) return 1;
  fuse_loop_config* const loop = fuse_loop_cfg_create();
  fuse_loop_cfg_set_clone_fd(loop, 1);
  const int rc = fuse_session_loop_mt(session, loop);
  fuse_loop_cfg_destroy(loop);
  fuse_session_unmount(session);
  fuse_remove_signal_handlers(session);
  return rc == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  // libfuse adds only to arguments that it has copied.
  fuse_args arguments = FUSE_ARGS_INIT(0, nullptr);
  for (int i = 0; i < argc; ++i) {
    if (fuse_opt_add_arg(&arguments, argv[i]) != 0) return 1;
  }
  const bool uring = has_io_uring();
  if (uring && fuse_opt_add_arg(&arguments, "-oio_uring") != 0) return 1;
  fuse_cmdline_opts given{};
  if (fuse_parse_cmdline(&arguments, &given) != 0 || given.mountpoint == nullptr) {
    std::fprintf(stderr, "usage: tarnfs_bench_nullfs -f [-o OPTIONS] MOUNTPOINT\n");
    return 2;
  }
  std::fprintf(stderr, "transport: %s\n", uring ? "io_uring" : "/dev/fuse");
  const fuse_lowlevel_ops ops = operations();
  fuse_session* const session = fuse_session_new(&arguments, &ops, sizeof ops, nullptr);
  if (session == nullptr) return 1;
  const int rc = serve(session, given.mountpoint);
  fuse_session_destroy(session);
  // The nodes go with the process, all at once.
  std::_Exit(rc);
}
