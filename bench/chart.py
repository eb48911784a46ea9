"""Draw the chart: each target's rate relative to the yardstick's, readable on light and dark backgrounds."""

from html import escape
from typing import Any, Final

_WIDTH, _BAR, _GAP, _LEFT, _RIGHT, _TOP = 760, 20, 12, 280, 130, 44
_STYLE: Final = """
    text { font: 13px system-ui, sans-serif; fill: #1f2328 }
    .title { font-weight: 600 }
    .quiet { fill: #59636e }
    .ours { fill: #0969da } .theirs { fill: #8c959f } .range { stroke: #1f2328; stroke-width: 1.5 }
    .line { stroke: #d1d9e0 }
    @media (prefers-color-scheme: dark) {
      text { fill: #f0f6fc } .quiet { fill: #9198a1 } .range { stroke: #f0f6fc } .line { stroke: #3d444d }
      .ours { fill: #4493f8 } .theirs { fill: #656c76 }
    }
"""
_THEIRS: Final = frozenset({"yardstick", "one_query", "django_oauth_toolkit", "oidc_provider"})


def chart(report: dict[str, Any]) -> str:
    """Return an SVG document. Without figures to compare, it contains a sentence that says so."""
    targets: dict[str, Any] = report.get("targets", {})
    height = _TOP + len(targets) * (_BAR + _GAP) + 34
    title = f"Requests a second as a share of bare Django's, {report['database']}, {report['began'][:10]}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{title}">',
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="8" y="22">{title}</text>',
    ]
    widest = max((target["of_yardstick"]["range"][1] for target in targets.values()), default=1.0)
    for place, (name, target) in enumerate(targets.items()):
        lines += _bar(name, target, _TOP + place * (_BAR + _GAP), (_WIDTH - _LEFT - _RIGHT) / widest)
    note = "Bars: mean of the middle half of interleaved rounds; strokes: the range of that half."
    lines.append(f'<text class="quiet" x="8" y="{height - 10}">{note}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _bar(name: str, target: dict[str, Any], y: int, scale: float) -> list[str]:
    share, (low, high) = target["of_yardstick"]["ratio"], target["of_yardstick"]["range"]
    kind, middle, text = "theirs" if name in _THEIRS else "ours", y + _BAR / 2, y + 15
    end = _LEFT + max(share, high) * scale + 8
    return [
        f'<text x="{_LEFT - 10}" y="{text}" text-anchor="end">{escape(target["label"])}</text>',
        f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{share * scale:.1f}" height="{_BAR}" rx="2"/>',
        f'<path class="range" d="M{_LEFT + low * scale:.1f} {middle}H{_LEFT + high * scale:.1f}"/>',
        f'<text x="{end:.1f}" y="{text}">{share:.2f} <tspan class="quiet">{target["per_second"]:.0f}/s</tspan></text>',
    ]
