"""SVG. Bars: a group for each phase, a bar for each peer. The longest bar is the best figure of its phase, be it the
highest rate or the shortest time; the others are as long as their share of it. Lines: a panel for each quantity, a line
for each peer."""

import math
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
PANEL_COLUMNS = 2
PANEL_WIDTH = 400  # with its labels
PANEL_HEIGHT = 240
PANEL_LEFT = 60
PANEL_RIGHT = 20
PANEL_TOP = 42
PANEL_BOTTOM = 40
TICKS_MAX = 6
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
    return document(width, y + GROUP_GAP, body)


def document(width, height, body):
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *body, "</svg>", ""])


def ticks(most):
    """Round numbers from 0 on, the last one at or above `most`."""
    least_step = (most or 1) / (TICKS_MAX - 1)
    power = 10 ** math.floor(math.log10(least_step))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least_step * (1 - 1e-9))
    return [step * i for i in range(math.ceil((most or 1) / step - 1e-9) + 1)]


def count_text(count):
    for power, letter in ((1_000_000, "M"), (1000, "k")):
        if count >= power:
            return f"{count / power:g}{letter}"
    return f"{count:g}"


def lines(title, panels, peers, x_title, y_title):
    """`panels`: {title: {peer: [(x, y), ...]}}. x is logarithmic, y linear from 0, each panel with its own scale."""
    width = PANEL_COLUMNS * PANEL_WIDTH
    shown = [peer for peer in peers if any(by_peer.get(peer) for by_peer in panels.values())]
    colours = colours_of(shown)
    body = [text(10, 20, title, weight="bold")]
    legend_parts, top = legend(shown, colours, TOP_HEIGHT, width)
    body += legend_parts
    for i, (name, by_peer) in enumerate(panels.items()):
        left = i % PANEL_COLUMNS * PANEL_WIDTH
        curves = [(colours[peer], by_peer[peer]) for peer in shown if by_peer.get(peer)]
        body += panel(left, top + i // PANEL_COLUMNS * PANEL_HEIGHT, name, curves, x_title, y_title)
    rows = -(-len(panels) // PANEL_COLUMNS)
    return document(width, top + rows * PANEL_HEIGHT + GROUP_GAP, body)


def panel(left, top, title, curves, x_title, y_title):
    """`curves`: [(colour, [(x, y), ...]), ...]"""
    x_begin, x_end = left + PANEL_LEFT, left + PANEL_WIDTH - PANEL_RIGHT
    y_begin, y_end = top + PANEL_HEIGHT - PANEL_BOTTOM, top + PANEL_TOP
    xs = sorted({x for _, points in curves for x, _ in points})
    y_ticks = ticks(max((y for _, points in curves for _, y in points), default=0))
    x_range = math.log(xs[-1] / xs[0]) if len(xs) > 1 else 1

    def at(x, y):
        across = math.log(x / xs[0]) / x_range
        return round(x_begin + across * (x_end - x_begin), 1), round(y_begin - y / y_ticks[-1] * (y_begin - y_end), 1)

    parts = [text((x_begin + x_end) / 2, top + 18, title, "middle", "bold")]
    for y in y_ticks:
        height = round(y_begin - y / y_ticks[-1] * (y_begin - y_end), 1)
        parts.append(f'<path d="M{x_begin} {height}H{x_end}" stroke="#ddd"/>')
        parts.append(text(x_begin - 6, height + 4, f"{y:.6g}", "end"))
    for x in xs:
        across, _ = at(x, 0)
        parts.append(f'<path d="M{across} {y_begin}v4" stroke="#222"/>')
        parts.append(text(across, y_begin + 16, count_text(x), "middle"))
    parts.append(text((x_begin + x_end) / 2, y_begin + 30, x_title, "middle"))
    parts.append(text(x_begin, y_end - 7, y_title))
    for colour, points in curves:
        places = [at(x, y) for x, y in points]
        path = " ".join(f"{x},{y}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in places]
    return parts
