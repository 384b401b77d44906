"""Bars as SVG: a group for each phase, a bar for each peer. The longest bar is the best figure of its phase, be it the
highest rate or the shortest time; the others are as long as their share of it."""

from xml.sax.saxutils import escape

import figures

COLOURS = {"tarnfs": "#0b6e8f", "tarnfs-mirror": "#5fb0c9", "ext4": "#8a8a8a", "btrfs": "#b3b3b3", "xfs": "#6b6b6b"}
OTHER_COLOURS = ("#c98b3b", "#a3b86c", "#b0709a", "#7a86c2", "#c7b53d", "#7fb3a0", "#bb6a5a", "#9c8570")
LABEL_WIDTH = 240
BARS_WIDTH = 420
VALUE_WIDTH = 110
BAR_HEIGHT = 12
GROUP_GAP = 12
TOP_HEIGHT = 34
LEGEND_HEIGHT = 20
LEGEND_COLUMN_WIDTH = 150
FONT = 'font-family="sans-serif" font-size="11"'


def value_text(value, unit):
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def colours_of(peers):
    others = iter(OTHER_COLOURS * 4)
    return {peer: COLOURS.get(peer) or next(others) for peer in peers}


def text(x, y, content, anchor="start", weight="normal"):
    style = f'{FONT} text-anchor="{anchor}" font-weight="{weight}" fill="#222"'
    return f'<text x="{x}" y="{y}" {style}>{escape(content)}</text>'


def legend(peers, colours, y, width):
    columns = max(1, width // LEGEND_COLUMN_WIDTH)
    parts = []
    for i, peer in enumerate(peers):
        x = 10 + i % columns * LEGEND_COLUMN_WIDTH
        line = y + i // columns * LEGEND_HEIGHT
        parts.append(f'<rect x="{x}" y="{line}" width="10" height="10" fill="{colours[peer]}"/>')
        parts.append(text(x + 15, line + 9, peer))
    return parts, y + (len(peers) + columns - 1) // columns * LEGEND_HEIGHT


def bars(title, phases, peers):
    """`phases` as in figures.summarize(): {phase: {"unit", "medians": {peer: value}}}."""
    width = LABEL_WIDTH + BARS_WIDTH + VALUE_WIDTH
    shown = [peer for peer in peers if any(row["medians"].get(peer) is not None for row in phases.values())]
    colours = colours_of(shown)
    body = [text(10, 20, title, weight="bold")]
    legend_parts, y = legend(shown, colours, TOP_HEIGHT, width)
    body += legend_parts
    for phase, row in phases.items():
        values = {peer: row["medians"][peer] for peer in shown if row["medians"].get(peer) is not None}
        shares = figures.shares_of_best(values, row["unit"])
        y += GROUP_GAP
        body.append(text(LABEL_WIDTH - 8, y + BAR_HEIGHT * len(values) / 2 + 4, phase, anchor="end"))
        for peer, value in values.items():
            length = round(max(1.0, BARS_WIDTH * shares[peer]), 1)
            body.append(
                f'<rect x="{LABEL_WIDTH}" y="{y}" width="{length}" height="{BAR_HEIGHT - 2}" fill="{colours[peer]}"/>'
            )
            body.append(text(LABEL_WIDTH + length + 4, y + BAR_HEIGHT - 3, value_text(value, row["unit"])))
            y += BAR_HEIGHT
    height = y + GROUP_GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *body, "</svg>", ""])
