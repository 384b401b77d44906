#include "tests/support/crash_simulation.h"

#include <algorithm>
#include <numeric>
#include <unordered_map>

namespace tarnfs::testing {
namespace {

constexpr std::uint64_t kSecondLifeOneIn = 24;
constexpr std::size_t kSecondLifeOperations = 5;
constexpr std::size_t kSecondLifeStates = 6;
constexpr unsigned kDuplicatesInARowMax = 100;

std::uint64_t hash_of(std::string_view text) {
  return checksum_of(std::as_bytes(std::span(text.data(), text.size())));
}

// Contents are alike in most states; one copy of each is enough.
class ContentPool {
 public:
  void share(Observation& seen) {
    for (auto& [number, inode] : seen.inodes) {
      SharedText& pooled = texts_[hash_of(*inode.content)];
      if (pooled == nullptr || *pooled != *inode.content) pooled = inode.content;
      inode.content = pooled;
    }
  }

 private:
  std::unordered_map<std::uint64_t, SharedText> texts_;
};

}  // namespace

struct CrashSimulation::WorkloadCheck {
  WorkloadCheck(const std::string& workload_name, VolumeLife& lived)
      : name(workload_name), life(lived), log(lived.start, lived.events) {}
  const std::string name;
  VolumeLife& life;
  const CrashLog log;
  std::unordered_map<std::uint64_t, Look> looks;  // by the digest of the image
  ContentPool contents;
};

// What came after a crash, on a disk of its own.
struct CrashSimulation::SecondLife {
  VolumeLife life;
  std::vector<DeviceEvent> events;  // with those before the crash that may still be lost
  std::size_t first_cut = 0;        // where the life's own events begin
};

VolumeLife CrashSimulation::live_once(const Workload& workload, std::size_t index) const {
  LifeOptions options;
  options.seed = mix_bits(seed_ ^ hash_of(workload.name));
  options.stamp = "w";
  options.close_at_end = workload.random_operations > 0 && index % 2 == 1;
  return live(start_.image, start_.seen, workload, options);
}

std::string CrashSimulation::simulate(std::uint64_t states_max) {
  struct Share {
    std::string class_name;
    std::uint64_t percent;      // of all states, with those of the classes before it
    std::uint64_t states_each;  // at least, of one workload
  };
  std::mt19937_64 random(seed_);
  for (const Share& share : {Share{"one", 25, 12}, Share{"long", 45, 120}, Share{"beside", 53, 120},
                             Share{"grow", 60, 120}, Share{"three", 68, 16}, Share{"two", 100, 12}}) {
    const std::uint64_t until = states_max * share.percent / 100;
    if (counts_.states >= until) continue;
    std::string violation = check_class(share.class_name, until - counts_.states, share.states_each, random);
    if (!violation.empty()) return violation;
  }
  return {};
}

std::string CrashSimulation::check_class(const std::string& class_name, std::uint64_t share, std::uint64_t states_each,
                                         std::mt19937_64& random) {
  const std::uint64_t until = counts_.states + share;
  std::vector<std::size_t> indices(workload_count(class_name));
  std::iota(indices.begin(), indices.end(), 0);
  std::shuffle(indices.begin(), indices.end(), random);
  if (!indices.empty()) states_each = std::max<std::uint64_t>(states_each, share / indices.size() + 1);
  for (std::size_t i = 0; counts_.states < until && (indices.empty() || i < indices.size()); ++i) {
    bool made_sense = false;
    std::string violation = check_workload(class_name, indices.empty() ? i : indices[i],
                                           std::min(states_each, until - counts_.states), made_sense);
    if (!violation.empty()) return violation;
    counts_.workloads += made_sense ? 1 : 0;
  }
  return {};
}

std::string CrashSimulation::check_workload(const std::string& class_name, std::size_t index, std::uint64_t states_max,
                                            bool& made_sense) {
  const Workload workload = make_workload(class_name, index, seed_);
  VolumeLife life = live_once(workload, index);
  made_sense = life.makes_sense;
  if (!made_sense) return {};
  WorkloadCheck check(workload.name, life);
  if (!life.problem.empty()) return report(check, "0.0.0.0", "while it ran", life.problem);
  std::mt19937_64 random(mix_bits(seed_ ^ hash_of(workload.name + " states")));
  std::vector<CrashSpec> specs = check.log.cut_points();
  if (specs.size() > states_max) std::shuffle(specs.begin(), specs.end(), random);
  const std::vector<CrashSpec> variations = check.log.variations(random);
  // At least a third of the states are other than whole cuts.
  const std::uint64_t until = counts_.states + states_max;
  const std::uint64_t cuts_until = counts_.states + std::max<std::uint64_t>(1, states_max * 2 / 3);
  for (const CrashSpec& spec : specs) {
    if (counts_.states >= cuts_until) break;
    if (std::string violation = check_state(check, spec); !violation.empty()) return violation;
  }
  for (const CrashSpec& spec : variations) {
    if (counts_.states >= until) return {};
    if (std::string violation = check_state(check, spec); !violation.empty()) return violation;
  }
  for (unsigned in_a_row = 0; counts_.states < until && in_a_row < kDuplicatesInARowMax;) {
    const std::uint64_t before = counts_.states;
    if (std::string violation = check_state(check, check.log.random_variation(random)); !violation.empty()) {
      return violation;
    }
    in_a_row = counts_.states == before ? in_a_row + 1 : 0;
  }
  return {};
}

const Look& CrashSimulation::look_once(WorkloadCheck& check, const CrashImage& image, bool& is_new) {
  const auto [place, added] = check.looks.try_emplace(image.digest());
  is_new = added;
  if (!added) {
    ++counts_.duplicates;
    return place->second;
  }
  place->second = look_at(image);
  check.contents.share(place->second.seen);
  ++counts_.states;
  return place->second;
}

std::string CrashSimulation::check_state(WorkloadCheck& check, const CrashSpec& spec) {
  const CrashImage image = check.log.build(spec);
  bool is_new = false;
  const Look& look = look_once(check, image, is_new);
  if (!look.problem.empty()) return report(check, spec.text(), check.log.describe(spec), look.problem);
  const std::size_t last = check.log.last_cut_like(spec.cut);
  for (std::size_t cut = spec.cut; cut <= last; ++cut) {
    const std::string problem = check.life.model.judge(look.seen, cut);
    if (problem.empty()) continue;
    CrashSpec judged = spec;
    judged.cut = cut;
    return report(check, judged.text(), check.log.describe(judged), problem);
  }
  if (!is_new || mix_bits(seed_ ^ hash_of(spec.text())) % kSecondLifeOneIn != 0) return {};
  const Observation seen = look.seen;
  return check_second_life(check, spec, image, seen, nullptr);
}

// Where all that was written is there, it was the process that died and not the machine: what was not flushed then is
// still not assured in the second life.
CrashSimulation::SecondLife CrashSimulation::live_again(const WorkloadCheck& check, const CrashSpec& spec,
                                                        const CrashImage& image, const Observation& seen) const {
  Workload workload;
  workload.random_operations = kSecondLifeOperations;
  LifeOptions options;
  options.seed = mix_bits(seed_ ^ hash_of(check.name + spec.text()));
  options.stamp = "v";
  options.settle_first = true;
  SecondLife second{live(image, seen, workload, options), {}, 0};
  if (spec.kind != CrashSpec::Kind::kAll) {
    second.events = second.life.events;
    return second;
  }
  second.first_cut = spec.cut;
  second.events.assign(check.life.events.begin(), check.life.events.begin() + static_cast<std::ptrdiff_t>(spec.cut));
  for (DeviceEvent event : second.life.events) {
    event.flush_begin_event += spec.cut;
    second.events.push_back(std::move(event));
  }
  second.life.start = check.life.start;
  return second;
}

std::string CrashSimulation::check_second_life(WorkloadCheck& check, const CrashSpec& spec, const CrashImage& image,
                                               const Observation& seen, const CrashSpec* only) {
  const SecondLife again = live_again(check, spec, image, seen);
  if (!again.life.problem.empty()) {
    return report(check, spec.text() + "/0.0.0.0",
                  check.log.describe(spec) + "\nafter recovery:\n" + again.life.model.steps_text(), again.life.problem);
  }
  const CrashLog log(again.life.start, again.events);
  if (only != nullptr) return check_second_state(check, spec, again, log, *only);
  std::mt19937_64 random(mix_bits(seed_ ^ hash_of(check.name + spec.text() + " again")));
  const auto some_of = [&](std::vector<CrashSpec> specs) {
    std::erase_if(specs, [&](const CrashSpec& second) { return second.cut < again.first_cut; });
    std::shuffle(specs.begin(), specs.end(), random);
    specs.resize(std::min(specs.size(), kSecondLifeStates / 2));
    return specs;
  };
  for (const std::vector<CrashSpec>& specs : {some_of(log.cut_points()), some_of(log.variations(random))}) {
    for (const CrashSpec& second : specs) {
      std::string violation = check_second_state(check, spec, again, log, second);
      if (!violation.empty()) return violation;
    }
  }
  return {};
}

std::string CrashSimulation::check_second_state(WorkloadCheck& check, const CrashSpec& first, const SecondLife& again,
                                                const CrashLog& log, const CrashSpec& second) {
  bool is_new = false;
  const Look& look = look_once(check, log.build(second), is_new);
  counts_.states_after_recovery += is_new ? 1 : 0;
  std::string problem = look.problem;
  if (problem.empty()) {
    const std::size_t settled = again.first_cut + again.life.settled_event;
    problem = second.cut <= settled ? check.life.model.judge(look.seen, first.cut)
                                    : again.life.model.judge(look.seen, second.cut - again.first_cut);
  }
  if (problem.empty()) return {};
  return report(check, first.text() + "/" + second.text(),
                check.log.describe(first) + "\nafter recovery (its events begin at " + std::to_string(again.first_cut) +
                    ", settled " + std::to_string(again.life.settled_event) + " after that):\n" +
                    again.life.model.steps_text() + log.describe(second),
                problem);
}

std::string CrashSimulation::report(const WorkloadCheck& check, const std::string& state, const std::string& details,
                                    const std::string& problem) const {
  return "ILLEGAL STATE after " + std::to_string(counts_.states) +
         " states\nTARNFS_CRASH_REPLAY=" + std::to_string(seed_) + ":" + check.name + ":" + state + "\n" +
         check.life.model.steps_text() + details + "\n" + problem + "\n";
}

std::string CrashSimulation::replay(const std::string& which) {
  const std::size_t colon = which.find(':');
  const std::size_t dot = which.find('.');
  if (colon == std::string::npos || dot > colon) return "not a state to replay: " + which;
  const std::size_t index = std::strtoull(which.c_str() + dot + 1, nullptr, 10);
  const Workload workload = make_workload(which.substr(0, dot), index, seed_);
  VolumeLife life = live_once(workload, index);
  WorkloadCheck check(workload.name, life);
  if (!life.problem.empty()) return report(check, "0.0.0.0", "while it ran", life.problem);
  const std::string states = which.substr(colon + 1);
  const std::size_t slash = std::min(states.find('/'), states.size());
  CrashSpec first;
  CrashSpec second;
  if (!CrashSpec::parse(states.substr(0, slash), first) || first.cut >= check.log.cut_count()) {
    return "there is no state " + states;
  }
  if (slash == states.size()) return check_state(check, first);
  if (!CrashSpec::parse(states.substr(slash + 1), second)) return "there is no state " + states;
  const CrashImage image = check.log.build(first);
  const Look look = look_at(image);
  return check_second_life(check, first, image, look.seen, &second);
}

}  // namespace tarnfs::testing
