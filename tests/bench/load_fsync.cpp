// Durability: small changes, each made durable before the next.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>
#include <vector>

#include "load.h"

namespace tarnfs::bench {

namespace {

constexpr std::array<unsigned, 2> kJobs = {1, 8};

std::string with_jobs(const std::string& phase, unsigned jobs) {
  return phase + "_" + std::to_string(jobs) + (jobs == 1 ? "_job" : "_jobs");
}

void ensure_directory(const std::string& path) {
  if (::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) fail("mkdir", path);
}

constexpr std::size_t kChunkBytes = 1 << 20;

void write_durably(const std::string& path, const std::vector<char>& data, std::uint64_t file_bytes) {
  const File file(path, O_CREAT | O_WRONLY);
  for (std::uint64_t offset = 0; offset < file_bytes; offset += kChunkBytes) {
    file.write_at(data.data(), kChunkBytes, offset);
  }
  file.sync();
}

// Files, written and durable before the clock starts, that the jobs overwrite at random places: one that all share, or
// one for each. (The kernel lets one fsync of a file at a time through to a FUSE file system.)
void overwrite(const std::string& phase, unsigned jobs, unsigned file_count, double seconds,
               std::uint64_t total_bytes) {
  const std::uint64_t file_bytes = total_bytes / file_count;
  const std::vector<char> data = random_bytes(kChunkBytes);
  for (unsigned i = 0; i < file_count; ++i) write_durably("overwrite" + std::to_string(i), data, file_bytes);
  std::vector<File> files;
  std::vector<Random> randoms;
  for (unsigned job = 0; job < jobs; ++job) {
    files.emplace_back("overwrite" + std::to_string(job % file_count), O_WRONLY);
    randoms.emplace_back(job + 1);
  }
  report(with_jobs(phase, jobs), run_for(jobs, seconds, [&](unsigned job, std::uint64_t n) {
           const std::uint64_t page = randoms[job].below(file_bytes / kPageBytes);
           files[job].write_at(data.data() + n % 128 * kPageBytes, kPageBytes, page * kPageBytes);
           files[job].sync_data();
         }));
}

// A log for each job.
void append(unsigned jobs, double seconds) {
  const std::vector<char> data = random_bytes(kPageBytes);
  std::vector<File> files;
  for (unsigned job = 0; job < jobs; ++job) files.emplace_back("log" + std::to_string(job), O_CREAT | O_WRONLY);
  report(with_jobs("append_4k_fdatasync", jobs), run_for(jobs, seconds, [&](unsigned job, std::uint64_t n) {
           files[job].write_at(data.data(), kPageBytes, n * kPageBytes);
           files[job].sync_data();
         }));
  for (unsigned job = 0; job < jobs; ++job) remove_file("log" + std::to_string(job));
}

// A mail spool: each job has its own directory.
void create(unsigned jobs, double seconds) {
  const std::vector<char> data = random_bytes(kPageBytes);
  for (unsigned job = 0; job < jobs; ++job) ensure_directory("spool" + std::to_string(job));
  const auto path_of = [](unsigned job, std::uint64_t n) {
    return "spool" + std::to_string(job) + "/" + std::to_string(n);
  };
  std::vector<std::uint64_t> made(jobs, 0);
  report(with_jobs("create_write_4k_fsync", jobs), run_for(jobs, seconds, [&](unsigned job, std::uint64_t n) {
           const File file(path_of(job, n), O_CREAT | O_EXCL | O_WRONLY);
           file.write_at(data.data(), kPageBytes, 0);
           file.sync();
           made[job] = n + 1;
         }));
  for (unsigned job = 0; job < jobs; ++job) {
    for (std::uint64_t n = 0; n < made[job]; ++n) remove_file(path_of(job, n));
  }
}

}  // namespace

void run_fsync(const Options& options) {
  const double seconds = static_cast<double>(options.number("milliseconds", 5000)) / 1000;
  const std::uint64_t file_bytes = options.number("file_mib", 64) << 20;
  for (const unsigned jobs : kJobs) overwrite("overwrite_4k_fdatasync", jobs, 1, seconds, file_bytes);
  overwrite("overwrite_4k_own_file_fdatasync", 8, 8, seconds, file_bytes);
  for (const unsigned jobs : kJobs) append(jobs, seconds);
  for (const unsigned jobs : kJobs) create(jobs, seconds);
}

}  // namespace tarnfs::bench
