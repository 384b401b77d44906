"""Medians and ratios of what was measured. Pure functions; tests/bench/figures_test.py has their tests.

A result is a dictionary {suite: {phase: {peer: {round: {"value": ..., "unit": ..., ...}}}}}. Rounds are counted from 0,
and a peer that failed in a round has no entry there.
"""

import re
from statistics import median

# Units of which less is better. All others are rates, or of one rate to another ("ratio").
LESS_IS_BETTER = ("s", "x", "us", "ms", "MiB", "%")
SUBJECT = "tarnfs"
MIRRORED = "tarnfs-mirror"
# What FUSE itself costs. It says something of the subject only when both have the same transport.
CEILING = "nullfs"

# From the weakest to the strongest promise about what is on the disk at its end.
UNTAR_PHASES = ("untar", "untar_sync", "untar_unmount")

# The suite `scale`: all files in one directory, or spread over many, and what is done with them.
SHAPES = ("one_directory", "many_directories")
COSTS = ("create", "stat", "open_close", "unlink")
COST_PHASE = re.compile(rf"({'|'.join(SHAPES)})_({'|'.join(COSTS)})_at_(\d+)")

# What issues of the project ask for: (suite, phases, peer, at least this ratio of tarnfs to the peer).
GOALS = (
    ("fsync", "overwrite_4k_fdatasync_1_job", "ext4", 1.0),
    ("fsync", "overwrite_4k_fdatasync_8_jobs", "ext4", 1.0),
    ("fsync", "overwrite_4k_own_file_fdatasync_8_jobs", "ext4", 1.0),
    ("fsync", "overwrite_4k_fdatasync_1_job", "btrfs", 2.0),
    ("fsync", "overwrite_4k_fdatasync_8_jobs", "btrfs", 2.0),
    ("fsync", "create_write_4k_fsync_1_job", "ext4", 1.0),
    ("fsync", "create_write_4k_fsync_8_jobs", "ext4", 1.0),
    ("fsync", "sqlite_rollback", "ext4", 1.0),
    ("fsync", "sqlite_wal", "ext4", 1.0),
    *(
        ("metadata", phase, peer, ratio)
        for phase in ("create_empty", "unlink", "rename", "chmod", "stat_first", "open_read_close")
        for peer, ratio in (("nullfs", 0.55), ("passthrough_hp", 3.0))
    ),
    ("metadata", "rename", "btrfs", 1.0),
    ("metadata", "unlink", "btrfs", 1.0),
    ("metadata", "create_write_4k", "btrfs", 1.0),
    ("metadata", "sqlite_rollback", "btrfs", 1.0),
    ("metadata", "sqlite_wal", "btrfs", 1.0),
    ("stream", "write_fsync", "ext4", 0.85),
    ("stream", "read_cold", "nullfs", 0.7),
    ("stream", "read_warm", "ext4", 0.9),
    ("stream", "random_read_4k_cold_1_job", "ext4", 0.7),
    ("stream", "random_read_4k_cold_8_jobs", "ext4", 0.7),
    ("stream", "random_write_4k_fsync_at_end", "btrfs", 1.0),
    *(("tree", phase, "btrfs", 0.6) for phase in UNTAR_PHASES),
    *(("tree", phase, "passthrough_hp", 4.0) for phase in UNTAR_PHASES),
    *(("tree", phase, "passthrough_hp", 2.0) for phase in ("find_stat_cold", "grep_cold", "cp_a", "rm_r")),
)
# What an attached mirror may cost: (suite, phase, at least this ratio of the mirrored volume to the one alone).
MIRROR_GOALS = (
    *(
        ("metadata", phase, 0.8)
        for phase in ("create_empty", "create_write_4k", "unlink", "rename", "chmod", "stat_first", "open_read_close")
    ),
    *(("tree", phase, 0.8) for phase in UNTAR_PHASES),
    ("stream", "write_fsync", 0.5),
)
# (suite, phase, at most so much), of the mirrored volume
MIRROR_LIMITS = (("publish", "published_to_durable", 1.3),)
# The same for figures of tarnfs alone: (suite, phase, at most so much).
LIMITS = (
    ("fsync", "write_amplification", 1.05),
    # 300 MiB, and what `cache` and `dirty_limit` are by default.
    *(("scale", f"{shape}_memory_max", 300 + 128 + 256) for shape in SHAPES),
    ("scale", "idle_cpu_percent", 0.1),
)
# (suite, phase, at least so much)
LEASTS = (
    *(("scale", f"{shape}_create_last_to_first", 0.9) for shape in SHAPES),
    ("scale", "threads_8_to_2", 1.0),
)


def less_is_better(unit):
    return unit in LESS_IS_BETTER


def shares_of_best(values, unit):
    """{peer: its figure as a share of the best one}: 1 is the best, whatever the unit."""
    if less_is_better(unit):
        least = min(values.values(), default=0)
        return {peer: least / value if value else 1.0 for peer, value in values.items()}
    most = max(values.values(), default=0)
    return {peer: value / most if most else 1.0 for peer, value in values.items()}


def median_value(rounds, key="value"):
    """The median over the rounds, or None when no round has the figure."""
    values = [figure[key] for figure in rounds.values() if figure.get(key) is not None]
    return median(values) if values else None


def ratios(subject_rounds, peer_rounds):
    """The subject's figure through the peer's, for each round that both have; above 1 the subject is better."""
    found = []
    for number, figure in sorted(subject_rounds.items()):
        peer = peer_rounds.get(number)
        if peer is None or not peer["value"] or not figure["value"]:
            continue
        ratio = figure["value"] / peer["value"]
        found.append(1 / ratio if less_is_better(figure["unit"]) else ratio)
    return found


def ratio_summary(subject_rounds, peer_rounds):
    """{"median", "least", "most"} of the ratios, or None. Each ratio is within one round, so that what slows the
    machine for some minutes slows both sides of it."""
    found = ratios(subject_rounds, peer_rounds)
    return {"median": median(found), "least": min(found), "most": max(found)} if found else None


def summarize(results, peers):
    """{suite: {phase: {"unit", "medians": {peer: value}, "latencies": {peer: {...}}, "ratios": {peer: {...}}}}}."""
    summary = {}
    for suite, phases in results.items():
        for phase, by_peer in phases.items():
            units = [figure["unit"] for rounds in by_peer.values() for figure in rounds.values()]
            row = {"unit": units[0] if units else "", "medians": {}, "latencies": {}, "ratios": {}}
            for peer in peers:
                rounds = by_peer.get(peer, {})
                row["medians"][peer] = median_value(rounds)
                latencies = {key: median_value(rounds, key) for key in ("p50_us", "p99_us", "p999_us")}
                if latencies["p50_us"] is not None:
                    row["latencies"][peer] = latencies
                if peer != SUBJECT and (ratio := ratio_summary(by_peer.get(SUBJECT, {}), rounds)):
                    row["ratios"][peer] = ratio
            summary.setdefault(suite, {})[phase] = row
    return summary


def judge(summary):
    """[(suite, phase, what it is held against, goal, figure, met)] for each goal whose figures are there."""
    judged = []
    for suite, phase, peer, goal in GOALS:
        ratio = summary.get(suite, {}).get(phase, {}).get("ratios", {}).get(peer)
        if ratio:
            figure = ratio["median"]
            judged.append((suite, phase, f"tarnfs / {peer}", f"at least {goal:g}", figure, figure >= goal))
    for suite, phase, goal in MIRROR_GOALS:
        ratio = summary.get(suite, {}).get(phase, {}).get("ratios", {}).get(MIRRORED)
        if ratio:
            figure = 1 / ratio["median"]
            judged.append((suite, phase, f"{MIRRORED} / {SUBJECT}", f"at least {goal:g}", figure, figure >= goal))
    bounds = [(SUBJECT, *rest, "at most") for rest in LIMITS]
    bounds += [(SUBJECT, *rest, "at least") for rest in LEASTS]
    bounds += [(MIRRORED, *rest, "at most") for rest in MIRROR_LIMITS]
    for peer, suite, phase, bound, words in bounds:
        value = summary.get(suite, {}).get(phase, {}).get("medians", {}).get(peer)
        if value is not None:
            met = value <= bound if words == "at most" else value >= bound
            judged.append((suite, phase, peer, f"{words} {bound:g}", value, met))
    return judged


def cost_phase(shape, operation, files):
    """The name of the phase that tells what an operation costs when there are so many files."""
    return f"{shape}_{operation}_at_{files}"


def cost_curves(phases):
    """{(shape, operation): {peer: [(number of files, cost), ...]}} of the phases that cost_phase() named."""
    curves = {}
    for phase, row in phases.items():
        if not (named := COST_PHASE.fullmatch(phase)):
            continue
        shape, operation, files = named.groups()
        for peer, value in row["medians"].items():
            if value is not None:
                curves.setdefault((shape, operation), {}).setdefault(peer, []).append((int(files), value))
    return {key: {peer: sorted(points) for peer, points in by_peer.items()} for key, by_peer in curves.items()}


def without_curves(phases):
    """The other phases."""
    return {phase: row for phase, row in phases.items() if not COST_PHASE.fullmatch(phase)}
