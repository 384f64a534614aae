"""Latency rows as bars, throughput and scaling rows as lines (PNG). Not: measuring.

Needs matplotlib.
"""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

FEW = 12  # points of a line that are marked and named one by one
# Dashes of a floor's line by arithmetic: lengths on and off in points.
FLOOR_DASHES = {"fp32": (6.0, 3.0), "fp16": (3.0, 2.0), "bf16": (3.0, 2.0), "int8": (1.0, 2.0)}


def write_chart(rows: list[dict[str, Any]], path: Path) -> None:
    """One group of bars per (case, batch): an engine's median, a whisker to its p99, the floors."""
    groups = list(dict.fromkeys((row["case"], row["batch"]) for row in rows))
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    inches = len(groups) * max(3.2, 0.4 * len(engines))
    figure = Figure(figsize=(max(6.0, inches), 4.5), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(engines)
    colours = colormaps["tab20"]
    for index, engine in enumerate(engines):
        own = [row for row in rows if row["engine"] == engine]
        places = [groups.index((row["case"], row["batch"])) + index * width for row in own]
        medians = np.array([row["median_ms"] for row in own])
        tails = np.maximum(np.array([row["p99_ms"] for row in own]) - medians, 0)
        bars = axes.bar(
            places,
            medians,
            width,
            label=engine,
            yerr=[0 * tails, tails],
            capsize=2,
            color=colours(index % colours.N),
        )
        axes.bar_label(
            bars, [f"{median:.1f}" for median in medians], fontsize=8, padding=1, rotation=90
        )
    named: set[str] = set()
    for index, group in enumerate(groups):
        own = [row for row in rows if (row["case"], row["batch"]) == group and row["cached"]]
        ends = (index - width / 2, index + 0.8 - width / 2)
        for name, floor_ms in {row["arithmetic"]: row["floor_ms"] for row in own}.items():
            label = "_" if name in named else f"floor of the turn alone ({name})"  # "_": no legend
            named.add(name)
            dashes = (0.0, FLOOR_DASHES[name])
            axes.hlines(floor_ms, *ends, colors="black", linestyles=dashes, label=label)
    axes.set_yscale("log")
    axes.margins(y=0.12)
    axes.set_ylabel("median latency (ms), whisker = p99")
    axes.set_xticks([index + 0.4 - width / 2 for index in range(len(groups))])
    axes.set_xticklabels([f"{case} tokens, batch {batch}" for case, batch in groups])
    threads = rows[0]["threads"]
    axes.set_title(f"config + new turn, {threads} thread{'s' if threads > 1 else ''}")
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=150)


def write_throughput_chart(rows: list[dict[str, Any]], path: Path) -> None:
    """Requests a second and p99 over the clients, a line per way and number of configs."""
    loaded = [row for row in rows if "requests_per_s" in row]
    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    panels = figure.subplots(1, 2)
    labels = {"requests_per_s": "requests / s", "p99_ms": "p99 latency (ms)"}
    colours = {way: f"C{i}" for i, way in enumerate(dict.fromkeys(row["way"] for row in loaded))}
    styles = dict(zip(sorted({row["configs"] for row in loaded}), cycle(("-", "--", ":"))))
    for axes, (field, label) in zip(panels, labels.items(), strict=True):
        for way, colour in colours.items():
            for n_configs, style in styles.items():
                own = [row for row in loaded if (row["way"], row["configs"]) == (way, n_configs)]
                name = f"{way}, {n_configs} config{'s' if n_configs > 1 else ''}"
                values = [row[field] for row in own]
                axes.plot([row["clients"] for row in own], values, style, color=colour, label=name)
        axes.set_xscale("log", base=2)
        axes.set_xlabel("clients in a closed loop")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=150)


def write_load_chart(rows: list[dict[str, Any]], path: Path) -> None:
    """Latency over the rate without deadlines; goodput over the rate with them."""
    single = next(row for row in rows if row["way"] == "single")
    bound_ms = rows[-1]["bound_ms"]
    measured = sorted(
        (row for row in rows if row["way"] == "open"), key=lambda row: row["offered_per_s"]
    )
    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    latency, goodput = figure.subplots(1, 2)
    patient = [row for row in measured if not row["is_bounded"]]
    rates = [row["offered_per_s"] for row in patient]
    for field, name in (("p99_ms", "p99"), ("p50_ms", "median")):
        latency.plot(rates, [row[field] for row in patient], "o-", label=name)
    latency.axhline(bound_ms, color="k", linestyle="--", label=f"bound, {bound_ms:g} ms")
    latency.axhline(single["plain_ms"], color="k", linestyle=":", label="the score alone")
    latency.set_yscale("log")
    latency.set_ylabel("latency from the intended arrival (ms)")
    bounded = [row for row in measured if row["is_bounded"]]
    rates = [row["offered_per_s"] for row in bounded]
    for field, name in (("goodput_per_s", "in time"), ("answered_per_s", "answered")):
        goodput.plot(rates, [row[field] for row in bounded], "o-", label=name)
    goodput.set_ylabel(f"answers / s, deadline {bound_ms:g} ms")
    for axes in (latency, goodput):
        axes.set_xlabel("offered requests / s (Poisson)")
        axes.legend(fontsize=8)
    goodput.set_ylim(bottom=0)
    figure.savefig(path, dpi=150)


def write_growth_chart(
    rows: list[dict[str, Any]], path: Path, x: str, x_label: str, *, is_log: bool = True
) -> None:
    """A line per engine over the field `x`: median, a band to its p99, the floors."""
    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.subplots()
    _draw_growth(axes, rows, x, x_label, is_log=is_log)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)


def write_configs_chart(rows: list[dict[str, Any]], path: Path) -> None:
    """Latency and the share of hits over the number of configs, a line per engine."""
    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    latency, hits = figure.subplots(1, 2)
    _draw_growth(latency, rows, "configs", "distinct configs", is_log=True)
    for engine in dict.fromkeys(row["engine"] for row in rows):
        own = [row for row in rows if row["engine"] == engine]
        hits.plot([row["configs"] for row in own], [row["hit_rate"] for row in own], "o-")
    _draw_places(hits, rows, "configs", "distinct configs", is_log=True)
    hits.set_ylim(0, 1.05)
    hits.set_ylabel(f"hit rate, cache of {rows[0]['cache_tokens']:,} tokens")
    figure.legend(*latency.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=150)


def write_memory_chart(rows: list[dict[str, Any]], path: Path) -> None:
    """Resident memory over the tokens in the cache, beside that of their keys and values alone."""
    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.subplots()
    tokens = np.array([row["cached_tokens"] for row in rows])
    axes.plot(tokens, [row["rss_mb"] for row in rows], "o-", label="resident memory")
    floor = rows[0]["rss_mb"] + tokens * rows[0]["floor_bytes"] / 1e6
    axes.plot(tokens, floor, "k--", label="first stage + keys and values")
    axes.set_xlabel("tokens in the prefix cache")
    axes.set_ylabel("resident memory (MB)")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)


def _draw_growth(
    axes: Axes, rows: list[dict[str, Any]], x: str, x_label: str, *, is_log: bool
) -> None:
    floors: dict[tuple[float, ...], list[float]] = {}
    for engine in dict.fromkeys(row["engine"] for row in rows):
        own = [row for row in rows if row["engine"] == engine]
        places = [row[x] for row in own]
        medians = [row["median_ms"] for row in own]
        axes.plot(places, medians, "-" if len(own) > FEW else "o-", label=engine)
        axes.fill_between(places, medians, [row["p99_ms"] for row in own], alpha=0.2)
        floors[tuple(row["floor_ms"] for row in own)] = places
    for index, (floor, places) in enumerate(floors.items()):
        named = f"floor of the new turn alone ({rows[0]['arithmetic']})"
        label = "_" if index else named  # "_": not in the legend
        axes.plot(places, floor, "k--", label=label)
    axes.set_yscale("log")
    _draw_places(axes, rows, x, x_label, is_log=is_log)
    axes.set_ylabel("median latency (ms), band to p99")


def _draw_places(
    axes: Axes, rows: list[dict[str, Any]], x: str, x_label: str, *, is_log: bool
) -> None:
    places = sorted({row[x] for row in rows})
    if is_log:
        axes.set_xscale("log")
    if len(places) <= FEW:
        axes.set_xticks(places, [f"{place:,}" for place in places])
        axes.set_xticks([], minor=True)
    axes.set_xlabel(x_label)
