"""The report: results.json with everything, results.md for people, and one plot for each suite."""

import json
import os

import figures
import plots

SUITE_TITLES = {
    "fsync": "Durability: small changes, each made durable before the next",
    "metadata": "Metadata",
    "stream": "Streams and random access",
    "tree": "A source tree",
    "scale": "What an operation costs among many files",
    "mixed": "Changes of names and attributes beside other work",
    "publish": "A large consistency point and its mirror",
}
METHOD = (
    "Peers run in turn, each round in another order, and each on an image made anew. A figure is the median over the "
    "rounds. A ratio is that of two figures of one round, as median over the rounds with the least and the most in "
    "brackets; above 1 tarnfs is better, whatever the unit. In the plots the longest bar is the best."
)
DIRECT_METHOD = (
    "On a disk, loop devices have direct I/O on, so that the writes and flushes of the kernel's file systems reach the "
    "disk in the same way as those of tarnfs, which opens its image with O_DIRECT."
)
SETTLED_METHOD = (
    "In the fsync suite all images were written once from end to end before they were used, and discard is off, so "
    "that nobody pays for the allocation of space in the file system below."
)


UNTAR_METHOD = (
    "untar is tar alone, untar_sync adds `sync -f`, and untar_unmount adds the unmount until the daemon has ended. "
    "Linux passes `sync -f` on to file systems of its own and not to those in user space: only with untar_unmount is "
    "everything in everybody's image."
)
SCALE_METHOD = (
    "`X_at_N` is what X costs when there are N files: wall time through operations, all threads together; a create is "
    "that of the files that led to N. The names of stat, open_close and unlink are a random sample, which the kernel "
    "has forgotten; what it has read of an image stays in memory, as does what a daemon knows. last_to_first is the "
    "rate of the last tenth of the creates through that of the first, threads_8_to_2 that of 8 threads through that of "
    "2, and memory_max the most that the daemon had in memory."
)
MIXED_METHOD = (
    "beside_busy has as many busy threads beside it as there are processors, stream_beside has six_threads beside a "
    "stream that rewrites a file and ends each pass with fdatasync, whose own rate is stream_beside_throughput. "
    "cp_wait_p999_ms is what tarnfs says that its operations waited for consistency points since the mount."
)
PUBLISH_METHOD = (
    "A file is written anew, of random bytes, and then a consistency point is taken: durable is when its root is in "
    "the image, published when the mirror shows it, both from the call on."
)
METHODS = {"tree": UNTAR_METHOD, "scale": SCALE_METHOD, "mixed": MIXED_METHOD, "publish": PUBLISH_METHOD}
# What the report names the parts of a curve's name.
SHAPE_TITLES = {"one_directory": "in one directory", "many_directories": "in many directories"}


def number(value):
    if value is None:
        return "–"
    if value < 1:
        return f"{value:.3f}"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio_text(ratio):
    return f"{ratio['median']:.2f} ({ratio['least']:.2f}–{ratio['most']:.2f})" if ratio else "–"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def transport_lines(transports):
    """`transports`: {peer: [each transport that it had]}."""
    if not transports:
        return []
    had = {peer: " and ".join(names) for peer, names in transports.items()}
    lines = ["Transports: " + ", ".join(f"{peer} {names}" for peer, names in had.items()) + ".", ""]
    ceiling = had.get(figures.CEILING)
    subject = had.get(figures.SUBJECT)
    if ceiling and subject and ceiling != subject:
        lines += [f"**{figures.SUBJECT} and {figures.CEILING} had different transports: do not compare them.**", ""]
    return lines


def plots_of(suite, phases, peers):
    """{name: SVG}: bars, and lines for what was measured at several numbers of files."""
    title = SUITE_TITLES[suite]
    found = {suite: plots.bars(title, figures.without_curves(phases), peers)}
    if curves := figures.cost_curves(phases):
        panels = {
            f"{operation} {SHAPE_TITLES[shape]}": curves.get((shape, operation), {})
            for operation in figures.COSTS
            for shape in figures.SHAPES
        }
        found[f"{suite}_lines"] = plots.lines(title, panels, peers, "files", "µs per operation")
    return found


def suite_lines(suite, phases, peers, transports):
    measured = [peer for peer in peers if any(row["medians"][peer] is not None for row in phases.values())]
    lines = [f"## {SUITE_TITLES[suite]}", ""]
    for name in plots_of(suite, phases, peers):
        lines += [f"![{name}]({name}.svg)", ""]
    lines += transport_lines(transports)
    if suite in METHODS:
        lines += [METHODS[suite], ""]
    lines += ["Medians:", ""]
    lines += table(
        ["phase", "unit", *measured],
        [[phase, row["unit"], *(number(row["medians"][peer]) for peer in measured)] for phase, row in phases.items()],
    )
    others = [peer for peer in measured if peer != figures.SUBJECT]
    if figures.SUBJECT in measured and others:
        lines += [f"Ratios, {figures.SUBJECT} to each peer:", ""]
        lines += table(
            ["phase", *others],
            [[phase, *(ratio_text(row["ratios"].get(peer)) for peer in others)] for phase, row in phases.items()],
        )
    timed = {phase: row for phase, row in phases.items() if row["latencies"]}
    if timed:
        lines += ["Latencies in µs, p50 / p99 / p99.9:", ""]
        lines += table(["phase", *measured], [[phase, *latency_cells(row, measured)] for phase, row in timed.items()])
    return lines


def latency_cells(row, peers):
    for peer in peers:
        some = row["latencies"].get(peer)
        yield " / ".join(number(some[key]) for key in ("p50_us", "p99_us", "p999_us")) if some else "–"


def method_lines(record):
    places = record["places"].values()
    method = [METHOD]
    if any(place["loop_direct_io"] for place in places):
        method.append(DIRECT_METHOD)
    if any(place["images_written_before"] for place in places):
        method.append(SETTLED_METHOD)
    lines = [" ".join(method), ""]
    for suite, place in record["places"].items():
        lines.append(f"- {suite}: images in {place['directory']} ({place['file_system']})")
    lines += [f"- {key}: {value}" for key, value in record["machine"].items()]
    lines += [f"- {key}: {value}" for key, value in record["sizes"].items()]
    loads = record["load_averages"]
    if loads:
        lines.append(f"- load average before each measurement: {min(loads):.1f} to {max(loads):.1f}")
    lines += [f"- rounds: {record['rounds']}", f"- command: `{record['command']}`", ""]
    if record["rounds"] < 3:
        lines += ["**Fewer than three rounds: these figures show that the tool works, no more.**", ""]
    return lines


def markdown(record, summary):
    lines = ["# tarnfs and its peers", ""]
    lines += method_lines(record)
    for name, reasons in record["skipped"].items():
        for suite, reason in reasons.items():
            lines.append(f"- skipped: {name} in {suite}: {reason}")
    for failure in record["failed"]:
        where = f"{failure['peer']} in {failure['suite']}, round {failure['round'] + 1}"
        lines.append(f"- **failed**: {where}: {failure['reason']}")
    lines.append("")
    judged = figures.judge(summary)
    if judged:
        rows = [
            [f"{suite}: {phase}", against, goal, number(value), "yes" if met else "**no**"]
            for suite, phase, against, goal, value, met in judged
        ]
        lines += ["## Goals", "", *table(["phase", "figure", "goal", "measured", "met"], rows)]
    for suite, phases in summary.items():
        lines += suite_lines(suite, phases, record["peers"], record["transports"].get(suite, {}))
    return "\n".join(lines).rstrip() + "\n"


def replace(path, text):
    """Whoever looks while a run goes on sees a whole file."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    os.replace(new, path)


def write(record, output):
    summary = figures.summarize(record["results"], record["peers"])
    replace(output / "results.json", json.dumps({**record, "summary": summary}, indent=1) + "\n")
    replace(output / "results.md", markdown(record, summary))
    for suite, phases in summary.items():
        for name, drawn in plots_of(suite, phases, record["peers"]).items():
            replace(output / f"{name}.svg", drawn)
