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


def suite_lines(suite, phases, peers, transports):
    measured = [peer for peer in peers if any(row["medians"][peer] is not None for row in phases.values())]
    lines = [f"## {SUITE_TITLES[suite]}", "", f"![{suite}]({suite}.svg)", ""]
    lines += transport_lines(transports)
    if suite == "tree":
        lines += [UNTAR_METHOD, ""]
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
        replace(output / f"{suite}.svg", plots.bars(SUITE_TITLES[suite], phases, record["peers"]))
