"""Bars over days, as SVG: each day has its values as a tooltip, and the kinds differ in their filling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from html import escape
from math import log10

from airflow_provider_cfbilling.api.money import dollars

_WIDTH, _HEIGHT = 560, 150
_LEFT, _TOP, _BOTTOM = 48, 8, 24
_DATE_EVERY = 7


@dataclass(frozen=True, eq=False)
class Series:
    """One kind of bar.

    :param name: what the tooltips call it.
    :param fill: its class: ``solid`` or ``striped``.
    :param cents: by day.
    """

    name: str
    fill: str
    cents: Mapping[date, float]


def bars(title: str, days: Sequence[date], series: Sequence[Series]) -> str:
    """Return a plot with the kinds on top of each other."""
    totals = [sum(each.cents.get(day, 0.0) for each in series) for day in days]
    top = _rounded_up(max([*totals, 0.0]))
    width = (_WIDTH - _LEFT) / len(days)
    height = _HEIGHT - _TOP - _BOTTOM
    parts = [_grid(top, height)]
    for number, day in enumerate(days):
        x, y = _LEFT + number * width, float(_TOP + height)
        values = {each: cents for each in series if (cents := each.cents.get(day, 0.0)) > 0}
        said = ", ".join(f"{dollars(cents)} {each.name}" for each, cents in values.items()) or "none"
        # A small bar is hard to hit: the whole column shows the tooltip.
        parts.append(
            f"<g><title>{escape(f'{day:%b %-d, %Y}: {said}')}</title>"
            f'<rect class="day" x="{x:.1f}" y="{_TOP}" width="{width:.1f}" height="{height}"/>'
        )
        for each, cents in values.items():
            tall = max(1.0, cents / top * height)
            y -= tall
            parts.append(
                f'<rect class="{each.fill}" x="{x + 1:.1f}" y="{y:.1f}" width="{width - 2:.1f}" '
                f'height="{tall:.1f}"/>'
            )
        parts.append("</g>")
        if (len(days) - 1 - number) % _DATE_EVERY == 0:
            parts.append(f'<text x="{x + width:.1f}" y="{_HEIGHT - 6}" text-anchor="end">{day:%b %-d}</text>')
    total = f"{title}: {dollars(sum(totals))} in {len(days)} days"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(total)}">'
        f'<defs><pattern id="cfbilling-stripes" width="6" height="6" patternUnits="userSpaceOnUse" '
        f'patternTransform="rotate(45)"><rect class="ground" width="6" height="6"/>'
        f'<rect class="stripe" width="3" height="6"/></pattern></defs>{"".join(parts)}</svg>'
    )


def _grid(top: float, height: int) -> str:
    lines = []
    for share in (0.0, 0.5, 1.0):
        y = _TOP + height * (1 - share)
        lines.append(f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        label = dollars(top * share).removesuffix(".00")
        lines.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    return "".join(lines)


def _rounded_up(cents: float) -> float:
    """Return 1, 2, 4 or 10 times a power of ten dollars; a dollar at least."""
    amount = max(cents, 100.0) / 100
    power = 10.0 ** int(log10(amount))
    step = next((step for step in (1, 2, 4) if amount <= step * power), 10)
    return 100 * power * step
