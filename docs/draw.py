"""Draw the pictures of the documentation from text: ``python docs/draw.py`` writes ``docs/images/*.svg``.

They load nothing. Each has a background of its own and the colors of light and dark mode, so that it can be
read on any page.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

IMAGES = Path(__file__).parent / "images"
WIDTH = 760
LINE = 19  # from one line of text to the next

STYLE = """
svg { --page: #ffffff; --text: #1f2328; --quiet: #59636e; --line: #818b98; --good: #dafbe1;
  --good-line: #1a7f37; --open: #fff8c5; --open-line: #9a6700; --none: #f0f2f4; --none-line: #818b98 }
@media (prefers-color-scheme: dark) {
  svg { --page: #0d1117; --text: #f0f6fc; --quiet: #a5adb8; --line: #7d8590; --good: #12301c;
    --good-line: #3fb950; --open: #382b08; --open-line: #d29922; --none: #22282f; --none-line: #7d8590 }
}
text { font: 14px system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif;
  fill: var(--text); stroke: var(--page); stroke-width: 6px; paint-order: stroke; stroke-linejoin: round }
.in { stroke: none }
.code { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace }
.bold { font-weight: 600 }
.quiet { fill: var(--quiet) }
.page { fill: var(--page); stroke: var(--line) }
.line { fill: none; stroke: var(--line); stroke-width: 1.5 }
.life { stroke-dasharray: 2 5 }
.dashed { stroke-dasharray: 6 4 }
.head { fill: var(--line) }
.good { fill: var(--good); stroke: var(--good-line) }
.open { fill: var(--open); stroke: var(--open-line) }
.none { fill: var(--none); stroke: var(--none-line) }
.gone { fill: var(--page); stroke: var(--none-line); stroke-dasharray: 6 4 }
.frame { fill: none; stroke-width: 1.5 }
"""

# Lines: who sends -> who receives | what. `->` arrives, `-x` is lost. A line that starts with a kind begins
# one of the ends; one that starts with * says how it ends.
CHARGE = """
the task | its record, in Airflow | Cloudflare
0 -> 2 | reads balance, limits and invoices
0 -> 1 | writes `intent`; if it cannot, stops
0 -> 2 | `POST /topup`, once
good | Accepted | a 2xx with a readable `payment_intent_id`
2 -> 0 | the id of the top-up
0 -> 1 | writes `accepted`
0 -> 2 | polls the status until the payment has settled
0 -> 1 | writes `completed`
* The task succeeds: charged once.
none | Not charged | refused in Cloudflare's own JSON, or nothing was sent
2 -> 0 | a refusal, such as 402 or 429; or no connection
0 -> 1 | writes `not_charged`
* The task fails. Airflow retries if that may help.
open | Unknown | no whole response, a 5xx, one that cannot be read
2 -x 0 | the response is lost
0 -> 2 | searches the invoices until `unknown_outcome_window` ends
* One matches: it is the charge. The task goes on as accepted.
* None when the window ends: not charged. The task charges again, once.
* It cannot be determined: the task fails, for you to review the invoices.
"""

# State, column, row, kind, what is known, what the next try does.
STATES = """
started             | 0 | 0 | none | nothing was sent            | next try: checks, charges
intent              | 0 | 1 | open | may have been charged       | next try: searches first
accepted            | 0 | 2 | good | accepted, not settled yet   | next try: waits for it
completed           | 0 | 3 | good | paid: the credits are there | next try: makes no request
the task is skipped | 1 | 0 | gone | nothing was sent            | cleared, it checks again
not_charged         | 1 | 1 | none | proven: nothing was charged | next try: searches, charges
"""
# From, to, what happens; a slash breaks the line.
MOVES = """
started -> intent | all checks passed: written before / the charge is sent
started -> the task is skipped | a guard / stops it
intent -> accepted | accepted, or its / invoice was found
intent -> not_charged | refused, not sent, / or no invoice
not_charged -> intent | charges again
not_charged -> accepted | its invoice appears late
accepted -> completed | the payment has settled
"""
CLEARED = "If the task was cleared, the record / may be gone: then the next try / searches before it charges."

# A row: how long, what to choose; then its cells: from column to column, kind, text.
WAITS = """
Airflow 2.11 | 3.0 | 3.1, 3.2 | 3.3 and later
Seconds, or a few minutes | `mode="poke"`
0-3 good a worker all the time
Longer, without a triggerer | `mode="reschedule"`
0-0 good a worker / for each poll
1-1 open the same; / at least 5 s
2-3 good a worker for each poll
Longer, hours or days | `deferrable=True`
0-3 good the triggerer; a worker for the first poll and the end
The same, with no worker | `start_from_trigger=True`
0-1 good the triggerer alone; / templates are refused
2-2 open ignored: / as `deferrable`
3-3 good the same; / with templates
Without end, for each event | an event trigger
0-0 none none: / use a sensor
1-2 open the triggerer alone; / restarts may miss events
3-3 good the same; / remembers
"""


class Picture:
    """Shapes and text, from top to bottom."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.parts: list[str] = []

    def text(self, x: float, y: float, lines: str, classes: str = "", anchor: str = "middle") -> None:
        """Write lines, which slashes separate, below one another; what is in backticks is code."""
        for number, line in enumerate(lines.split(" / ")):
            marked = re.sub(r"`(.+?)`", r'<tspan class="code">\1</tspan>', escape(line.strip()))
            self.parts.append(
                f'<text x="{x:g}" y="{y + number * LINE:g}" text-anchor="{anchor}" class="{classes}">'
                f"{marked}</text>"
            )

    def box(self, x: float, y: float, width: float, height: float, classes: str) -> None:
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" class="{classes}"/>'
        )

    def arrow(self, *points: tuple[float, float], lost: bool = False) -> None:
        """Draw a line with a head at its end; with a cross half way if it is lost."""
        (from_x, from_y), (x, y) = points[-2:]
        along, across = (x > from_x) - (x < from_x), (y > from_y) - (y < from_y)
        if lost:
            x = (from_x + x) / 2
        self.line(*points[:-1], (x, y), classes="dashed" if lost else "")
        if lost:
            self.line((x - 6, y - 6), (x + 6, y + 6))
            self.line((x - 6, y + 6), (x + 6, y - 6))
        else:
            back, side = (x - 9 * along, y - 9 * across), (5 * across, 5 * along)
            corners = [(x, y), (back[0] + side[0], back[1] + side[1]), (back[0] - side[0], back[1] - side[1])]
            self.parts.append(f'<polygon points="{_points(corners)}" class="head"/>')

    def line(self, *points: tuple[float, float], classes: str = "") -> None:
        self.parts.append(f'<polyline points="{_points(points)}" class="line {classes}"/>')

    def svg(self, height: float) -> str:
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" '
                f'width="{WIDTH}" height="{height:g}" role="img">',
                f"<title>{escape(self.title)}</title>",
                f"<style>{STYLE}</style>",
                f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:g}" rx="8" class="page"/>',
                *self.parts,
                "</svg>\n",
            ]
        )


def charge() -> str:
    """Draw who sends what to whom, and the three ends."""
    picture = Picture("A charge and its three ends: accepted, not charged, unknown")
    who, *steps = CHARGE.strip().splitlines()
    columns = [110, 380, 650]
    y = 74.0
    kind, top = "", 0.0
    for step in steps:
        if found := re.fullmatch(r"(\d) -([>x]) (\d) \| (.*)", step):
            start, lost, end, what = columns[int(found[1])], found[2] == "x", columns[int(found[3])], found[4]
            y += 40
            picture.arrow((start, y), (end, y), lost=lost)
            picture.text((start + end) / 2, y - (14 if lost else 8), what)
        elif step.startswith("* "):
            y += 30
            picture.text(WIDTH / 2, y, step[2:], "bold")
        else:
            y += 18
            if kind:
                picture.box(20, top, WIDTH - 40, y - top, f"frame {kind}")
            y += 18
            top = y
            kind, name, when = step.split(" | ")
            picture.box(20, y, 120, 28, kind)
            picture.text(80, y + 19, name, "in bold")
            picture.text(152, y + 19, when, "quiet", anchor="start")
            y += 24
    y += 18
    picture.box(20, top, WIDTH - 40, y - top, f"frame {kind}")
    lifelines = Picture("")  # below all else
    for x, name in zip(columns, who.split(" | "), strict=True):
        lifelines.line((x, 56), (x, y), classes="life")
        lifelines.box(x - 90, 20, 180, 36, "none")
        lifelines.text(x, 43, name, "in bold")
    picture.parts = lifelines.parts + picture.parts
    return picture.svg(y + 20)


def record() -> str:
    """Draw the states of the record, and what leads from one to the next."""
    picture = Picture("The states of the record of a top-up, and what the next try does in each")
    width, high, left, top, row_height = 250, 78, (40, 470), 24, 142
    boxes: dict[str, tuple[float, float]] = {}
    for line in STATES.strip().splitlines():
        name, column, row, kind, known, then = (part.strip() for part in line.split("|"))
        x, y = boxes[name] = (left[int(column)], top + row_height * int(row))
        picture.box(x, y, width, high, kind)
        picture.text(x + width / 2, y + 23, name if " " in name else f"`{name}`", "in bold")
        picture.text(x + width / 2, y + 44, known, "in")
        picture.text(x + width / 2, y + 64, then, "in quiet")
    for line in MOVES.strip().splitlines():
        move, what = line.split(" | ")
        start, end = move.split(" -> ")
        (x, y), (to_x, to_y) = boxes[start], boxes[end]
        lines = what.count(" / ")
        if x == to_x:
            middle = x + width / 2
            picture.arrow((middle, y + high), (middle, to_y))
            picture.text(middle + 14, (y + high + to_y) / 2 + 4 - lines * LINE / 2, what, anchor="start")
        elif y == to_y:
            at = y + (high * 0.62 if x < to_x else high * 0.84)
            ends = (x + width, to_x) if x < to_x else (x, to_x + width)
            picture.arrow((ends[0], at), (ends[1], at))
            picture.text(sum(ends) / 2, at + (-10 - lines * LINE if x < to_x else 21), what)
        else:
            at = to_y + high / 2
            picture.arrow((x + width / 2, y + high), (x + width / 2, at), (to_x + width, at))
            picture.text((x + width / 2 + to_x + width) / 2, at - 10, what)
    picture.text(left[1], top + row_height * 3 + 20, CLEARED, "quiet", anchor="start")
    bottom = max(y for _, y in boxes.values()) + high
    return picture.svg(bottom + 24)


def waits() -> str:
    """Draw which wait to choose: a row for each length, a column for each Airflow."""
    picture = Picture("Which wait to choose, by its length and the version of Airflow")
    versions, *lines = WAITS.strip().splitlines()
    left, column, height = 236, 126, 66
    picture.text(20, 34, "How long it waits", "bold", anchor="start")
    for number, version in enumerate(versions.split(" | ")):
        picture.text(left + column * (number + 0.5), 34, version, "bold")
    y = 50.0 - height
    for line in lines:
        if cell := re.fullmatch(r"(\d)-(\d) (\w+) (.*)", line):
            first, last, kind, what = int(cell[1]), int(cell[2]), cell[3], cell[4]
            x, width = left + column * first + 3, column * (last - first + 1) - 6
            picture.box(x, y + 5, width, height - 10, kind)
            picture.text(x + width / 2, y + height / 2 + 5 - what.count(" / ") * LINE / 2, what, "in")
        else:
            y += height
            how_long, choice = line.split(" | ")
            picture.text(20, y + 29, how_long, anchor="start")
            picture.text(20, y + 49, choice, "quiet", anchor="start")
    return picture.svg(y + height + 12)


def pictures() -> dict[str, str]:
    """Return the pictures by the names of their files."""
    return {"charge.svg": charge(), "record.svg": record(), "waits.svg": waits()}


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


if __name__ == "__main__":
    for name, text in pictures().items():
        (IMAGES / name).write_text(text)
