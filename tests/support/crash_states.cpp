#include "tests/support/crash_states.h"

#include <algorithm>
#include <cstring>

namespace tarnfs::testing {
namespace {

constexpr std::size_t kSectorSize = 512;
constexpr std::size_t kSectorsPerBlock = kBlockSize / kSectorSize;
constexpr std::uint8_t kWhole = 0xff;
constexpr std::size_t kUnitsForAllSubsets = 4;
constexpr std::size_t kUnitsListedMax = 24;  // of a cut with many pending blocks
constexpr std::uint64_t kRandomPerCut = 6;

// `block` with the sectors of `mask` taken from `newer`.
ImageBlock torn(const ImageBlock& block, const ImageBlock& newer, std::uint8_t mask) {
  PageRef page = block.page ? PageRef::copy_of(block.page.bytes()) : PageRef::zeroed();
  for (std::size_t sector = 0; sector < kSectorsPerBlock; ++sector) {
    if ((mask >> sector & 1) == 0) continue;
    std::memcpy(page.mutable_bytes().data() + sector * kSectorSize, newer.page.data() + sector * kSectorSize,
                kSectorSize);
  }
  const std::uint64_t digest = checksum_of(page.bytes());
  return ImageBlock{std::move(page), digest};
}

// A prefix, a suffix, or random sectors; neither none nor all.
std::uint8_t random_tear(std::mt19937_64& random) {
  const unsigned sectors = 1 + random() % (kSectorsPerBlock - 1);
  const auto prefix = static_cast<std::uint8_t>((1U << sectors) - 1);
  switch (random() % 3) {
    case 0:
      return prefix;
    case 1:
      return static_cast<std::uint8_t>(~prefix);
    default:
      return static_cast<std::uint8_t>(1 + random() % (kWhole - 1));
  }
}

}  // namespace

std::string CrashSpec::text() const {
  return std::to_string(cut) + "." + std::to_string(static_cast<unsigned>(kind)) + "." + std::to_string(unit) + "." +
         std::to_string(value);
}

bool CrashSpec::parse(std::string_view text, CrashSpec& spec) {
  std::vector<std::uint64_t> numbers;
  for (std::size_t start = 0; start <= text.size();) {
    const std::size_t end = std::min(text.find('.', start), text.size());
    const std::string field(text.substr(start, end - start));
    if (field.empty() || field.find_first_not_of("0123456789") != std::string::npos) return false;
    numbers.push_back(std::strtoull(field.c_str(), nullptr, 10));
    start = end + 1;
  }
  if (numbers.size() != 4 || numbers[1] > static_cast<std::uint64_t>(Kind::kRandom)) return false;
  spec = CrashSpec{numbers[0], static_cast<Kind>(numbers[1]), numbers[2], numbers[3]};
  return true;
}

CrashLog::CrashLog(const CrashImage& start, const std::vector<DeviceEvent>& events) {
  std::vector<std::size_t> units_before{0};  // by event
  CrashImage durable = start;
  durable.compact();
  bases_.push_back(durable);
  Cut cut;
  cuts_.push_back(cut);
  for (const DeviceEvent& event : events) {
    for (std::size_t i = 0; i < event.blocks.size(); ++i) {
      units_.push_back(Unit{event.first_address + i, event.blocks[i]});
    }
    if (event.kind == DeviceEvent::Kind::kFlushEnd && units_before[event.flush_begin_event] > cut.first_unit) {
      for (; cut.first_unit < units_before[event.flush_begin_event]; ++cut.first_unit) {
        durable.put(units_[cut.first_unit].address, units_[cut.first_unit].block);
      }
      durable.compact();
      bases_.push_back(durable);
      cut.base = bases_.size() - 1;
    }
    cut.end_unit = units_.size();
    units_before.push_back(units_.size());
    cuts_.push_back(cut);
  }
}

std::vector<CrashSpec> CrashLog::cut_points() const {
  std::vector<CrashSpec> specs;
  for (std::size_t cut = 0; cut < cuts_.size(); ++cut) {
    specs.push_back(CrashSpec{cut, CrashSpec::Kind::kAll, 0, 0});
    if (cuts_[cut].pending() > 0) specs.push_back(CrashSpec{cut, CrashSpec::Kind::kNone, 0, 0});
  }
  return specs;
}

void CrashLog::add_subsets(std::size_t cut, std::mt19937_64& random, std::vector<CrashSpec>& specs) const {
  const std::size_t pending = cuts_[cut].pending();
  if (pending == 0) return;
  if (pending <= kUnitsForAllSubsets) {
    for (std::uint64_t mask = 1; mask + 1 < std::uint64_t{1} << pending; ++mask) {
      specs.push_back(CrashSpec{cut, CrashSpec::Kind::kMask, 0, mask});
    }
  }
  const std::size_t listed = std::min(pending, kUnitsListedMax);
  for (std::size_t i = 0; i < listed; ++i) {
    const std::uint64_t unit = pending <= kUnitsListedMax ? i : random() % pending;
    if (pending > kUnitsForAllSubsets) {
      specs.push_back(CrashSpec{cut, CrashSpec::Kind::kWithout, unit, 0});
      specs.push_back(CrashSpec{cut, CrashSpec::Kind::kOnly, unit, 0});
    }
    // The last block written before the cut is the one most likely to be torn.
    const unsigned tears = unit + 1 == pending ? 4 : 1;
    for (unsigned tear = 0; tear < tears; ++tear) {
      specs.push_back(CrashSpec{cut, CrashSpec::Kind::kTornInAll, unit, random_tear(random)});
      if (pending > 1) specs.push_back(CrashSpec{cut, CrashSpec::Kind::kTornInNone, unit, random_tear(random)});
    }
  }
  if (pending <= 2) return;
  for (std::uint64_t i = 0; i < kRandomPerCut; ++i) {
    specs.push_back(CrashSpec{cut, CrashSpec::Kind::kRandom, 0, random() % 1'000'000});
  }
}

std::vector<CrashSpec> CrashLog::variations(std::mt19937_64& random) const {
  std::vector<CrashSpec> specs;
  for (std::size_t cut = 0; cut < cuts_.size(); ++cut) {
    // The end of a flush and a mark leave pending what the event before them left.
    if (cut > 0 && cuts_[cut] == cuts_[cut - 1]) continue;
    add_subsets(cut, random, specs);
  }
  std::shuffle(specs.begin(), specs.end(), random);
  return specs;
}

CrashSpec CrashLog::random_variation(std::mt19937_64& random) const {
  const std::size_t cut = random() % cuts_.size();
  return CrashSpec{cut, CrashSpec::Kind::kRandom, 0, random() % 1'000'000'000};
}

std::vector<std::uint8_t> CrashLog::survivors(const CrashSpec& spec) const {
  const std::size_t pending = cuts_[spec.cut].pending();
  std::vector<std::uint8_t> masks(pending, 0);
  const auto set_unit = [&](std::uint8_t mask) {
    if (spec.unit < pending) masks[spec.unit] = mask;
  };
  switch (spec.kind) {
    case CrashSpec::Kind::kAll:
      masks.assign(pending, kWhole);
      break;
    case CrashSpec::Kind::kNone:
      break;
    case CrashSpec::Kind::kMask:
      for (std::size_t i = 0; i < std::min<std::size_t>(pending, 64); ++i) masks[i] = spec.value >> i & 1 ? kWhole : 0;
      break;
    case CrashSpec::Kind::kWithout:
      masks.assign(pending, kWhole);
      set_unit(0);
      break;
    case CrashSpec::Kind::kOnly:
      set_unit(kWhole);
      break;
    case CrashSpec::Kind::kTornInAll:
      masks.assign(pending, kWhole);
      set_unit(static_cast<std::uint8_t>(spec.value));
      break;
    case CrashSpec::Kind::kTornInNone:
      set_unit(static_cast<std::uint8_t>(spec.value));
      break;
    case CrashSpec::Kind::kRandom: {
      std::mt19937_64 random(mix_bits(spec.value ^ mix_bits(spec.cut)));
      const unsigned kept_of_8 = 1 + random() % 7;
      const unsigned torn_of_16 = random() % 2 == 0 ? 0 : 1 + random() % 4;
      for (std::uint8_t& mask : masks) {
        mask = random() % 8 < kept_of_8 ? kWhole : 0;
        if (random() % 16 < torn_of_16) mask = random_tear(random);
      }
      break;
    }
  }
  return masks;
}

std::size_t CrashLog::last_cut_like(std::size_t cut) const {
  std::size_t last = cut;
  while (last + 1 < cuts_.size() && cuts_[last + 1] == cuts_[cut]) ++last;
  return last;
}

CrashImage CrashLog::build(const CrashSpec& spec) const {
  const Cut& cut = cuts_[spec.cut];
  CrashImage image = bases_[cut.base];
  const std::vector<std::uint8_t> masks = survivors(spec);
  for (std::size_t i = 0; i < masks.size(); ++i) {
    const Unit& unit = units_[cut.first_unit + i];
    if (masks[i] == kWhole) image.put(unit.address, unit.block);
    if (masks[i] != kWhole && masks[i] != 0) {
      image.put(unit.address, torn(image.at(unit.address), unit.block, masks[i]));
    }
  }
  return image;
}

std::string CrashLog::describe(const CrashSpec& spec) const {
  const Cut& cut = cuts_[spec.cut];
  const std::vector<std::uint8_t> masks = survivors(spec);
  std::string text = "cut at event " + std::to_string(spec.cut) + " of " + std::to_string(cuts_.size() - 1) + ", " +
                     std::to_string(masks.size()) + " blocks not flushed:";
  for (std::size_t i = 0; i < masks.size(); ++i) {
    text += " " + std::to_string(units_[cut.first_unit + i].address);
    if (masks[i] == kWhole) {
      text += " there,";
    } else if (masks[i] == 0) {
      text += " lost,";
    } else {
      text += " torn (sectors ";
      for (std::size_t sector = 0; sector < kSectorsPerBlock; ++sector) text += masks[i] >> sector & 1 ? '1' : '0';
      text += "),";
    }
  }
  text.pop_back();
  return text;
}

}  // namespace tarnfs::testing
