// Streams and random reads of one large file. What must be read cold is its own step, so that the caller can mount anew
// in between.
#include <fcntl.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <string>
#include <vector>

#include "load.h"

namespace tarnfs::bench {

namespace {

constexpr std::size_t kChunkBytes = 1 << 20;
constexpr const char* kPath = "stream";

double seconds_since(Clock::time_point begun) {
  return std::chrono::duration<double>(Clock::now() - begun).count();
}

void write_all(const std::string& phase, std::uint64_t file_bytes) {
  // Several chunks, so that equal blocks do not follow each other.
  const std::vector<char> data = random_bytes(kChunkBytes * 4);
  const auto begun = Clock::now();
  {
    const File file(kPath, O_CREAT | O_WRONLY);
    for (std::uint64_t offset = 0; offset < file_bytes; offset += kChunkBytes) {
      file.write_at(data.data() + offset % data.size(), kChunkBytes, offset);
    }
    file.sync();
  }
  report_megabytes(phase, file_bytes, seconds_since(begun));
}

void read_all(const std::string& phase, std::uint64_t file_bytes) {
  std::vector<char> buffer(kChunkBytes);
  const File file(kPath, O_RDONLY);
  const auto begun = Clock::now();
  for (std::uint64_t offset = 0; offset < file_bytes; offset += kChunkBytes) {
    file.read_at(buffer.data(), kChunkBytes, offset);
  }
  report_megabytes(phase, file_bytes, seconds_since(begun));
}

// The pages of the file in a random order.
std::vector<std::uint32_t> shuffled_pages(std::uint64_t file_bytes) {
  std::vector<std::uint32_t> pages(file_bytes / kPageBytes);
  std::iota(pages.begin(), pages.end(), 0U);
  Random random(7);
  for (std::size_t i = pages.size(); i > 1; --i) std::swap(pages[i - 1], pages[random.below(i)]);
  return pages;
}

// No page is read twice, so that each read is cold; the phase ends early when there is none left.
void random_read(const std::string& phase, unsigned jobs, double seconds, std::uint64_t file_bytes) {
  const std::vector<std::uint32_t> pages = shuffled_pages(file_bytes);
  const auto limit = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  std::atomic<std::size_t> next{0};
  std::atomic<std::uint64_t> reads{0};
  std::vector<std::vector<float>> latencies(jobs);
  Figures figures;
  figures.seconds = run_threads(jobs, [&](unsigned job) {
    std::vector<char> buffer(kPageBytes);
    const File file(kPath, O_RDONLY);
    auto before = Clock::now();
    const auto end = before + limit;
    for (std::size_t i = next++; i < pages.size() && before < end; i = next++) {
      file.read_at(buffer.data(), kPageBytes, std::uint64_t{pages[i]} * kPageBytes);
      const auto after = Clock::now();
      latencies[job].push_back(std::chrono::duration<float, std::micro>(after - before).count());
      before = after;
    }
    reads += latencies[job].size();
  });
  for (const auto& some : latencies) {
    figures.latencies_us.insert(figures.latencies_us.end(), some.begin(), some.end());
  }
  figures.operations = reads;
  report(phase, std::move(figures));
}

// Through the cache: a quarter of the pages, then one fsync that counts.
void random_write(const std::string& phase, std::uint64_t file_bytes) {
  const std::vector<std::uint32_t> pages = shuffled_pages(file_bytes);
  const std::vector<char> data = random_bytes(kPageBytes * 128);
  const std::size_t count = pages.size() / 4;
  Figures figures;
  const auto begun = Clock::now();
  {
    const File file(kPath, O_WRONLY);
    for (std::size_t i = 0; i < count; ++i) {
      file.write_at(data.data() + i % 128 * kPageBytes, kPageBytes, std::uint64_t{pages[i]} * kPageBytes);
    }
    file.sync();
  }
  figures.operations = count;
  figures.seconds = seconds_since(begun);
  report(phase, std::move(figures));
}

}  // namespace

void run_stream(const Options& options) {
  const std::string phase = options.text("phase", "write_fsync");
  const double seconds = static_cast<double>(options.number("milliseconds", 3000)) / 1000;
  const std::uint64_t file_bytes = options.number("file_mib", 1024) << 20;
  if (phase == "write_fsync") {
    write_all(phase, file_bytes);
  } else if (phase == "read_cold" || phase == "read_warm") {
    read_all(phase, file_bytes);
  } else if (phase == "random_read_4k_cold_1_job") {
    random_read(phase, 1, seconds, file_bytes);
  } else if (phase == "random_read_4k_cold_8_jobs") {
    random_read(phase, 8, seconds, file_bytes);
  } else if (phase == "random_write_4k_fsync_at_end") {
    random_write(phase, file_bytes);
  } else {
    std::fprintf(stderr, "tarnfs_bench_load: there is no phase %s\n", phase.c_str());
    std::_Exit(2);
  }
}

}  // namespace tarnfs::bench
