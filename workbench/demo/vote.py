"""A blind vote: two results without names, which is better, the next pair; at the end the names and the shares."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from workbench.demo.board import pictures_board
from workbench.demo.degradation import PRIVATE, Controls
from workbench.demo.record import RECORD, recorded
from workbench.demo.session import Sessions
from workbench.demo.view import captioned, in_columns, picture
from workbench.images import load_image
from workbench.text import write_json

WIDTHS: list[str | int] = ["150px", "150px", *["84px"] * 3, "160px"]
CHOICES = {"left": "Left is better", "none": "No difference", "right": "Right is better"}


@dataclass(frozen=True)
class Pair:
    """Two results of one measurement, as data addresses, with the names of their methods; ``of``: which measurement."""

    of: str
    names: tuple[str, str]
    pictures: tuple[str, str]


@dataclass(frozen=True)
class Ballot:
    """What one visitor may vote on, the next pair first, and how they voted: (pair, one of ``CHOICES``)."""

    coming: tuple[Pair, ...] = ()
    votes: tuple[tuple[Pair, str], ...] = ()

    def adding(self, of: str, results: Sequence[tuple[str, str]]) -> Ballot:
        """With all pairs of ``results`` (name, data address), sides and order drawn by lot."""
        known = {frozenset(pair.pictures) for pair in (*self.coming, *(pair for pair, _ in self.votes))}
        pairs = []
        for both in combinations(results, 2):
            (one, first), (two, second) = random.sample(both, 2)
            if frozenset((first, second)) not in known:
                pairs.append(Pair(of, (one, two), (first, second)))
        coming = [*self.coming, *pairs]
        random.shuffle(coming)
        return replace(self, coming=tuple(coming))

    def voted(self, choice: str) -> Ballot:
        """With a vote on the pair that is shown."""
        return replace(self, coming=self.coming[1:], votes=(*self.votes, (self.coming[0], choice)))


def shares(votes: Iterable[tuple[Pair, str]]) -> list[dict[str, Any]]:
    """For each two methods: votes for either, and the share of the first among those with a preference.

    "low" and "high" are its 95 % interval by Wilson (1927), which holds for few votes too (Brown, Cai, DasGupta 2001).
    """
    from scipy.stats import binomtest  # slow to import

    counts: dict[tuple[str, ...], list[int]] = {}
    for pair, choice in votes:
        names = tuple(sorted(pair.names))
        better = {"left": pair.names[0], "right": pair.names[1]}.get(choice)
        counts.setdefault(names, [0, 0, 0])[2 if better is None else names.index(better)] += 1
    found = []
    for (one, two), (first, second, none) in counts.items():
        share: dict[str, Any] = {"first": one, "second": two, "for first": first, "for second": second, "none": none}
        if first + second:
            interval = binomtest(first, first + second).proportion_ci(0.95, method="wilson")
            share |= {"share of first": first / (first + second), "low": interval.low, "high": interval.high}
        found.append(share)
    return found


def vote_tab(sessions: Sessions) -> Controls:
    """The tab: the "ballot", and "collect", which adds what was restored to it and fills "outputs"."""
    gr.Markdown(
        "Two results of one measurement, without names: which is better? There are pairs that were computed beforehand "
        "(photos made four times smaller, noise 0.01), and all that you restore during this visit."
    )
    ballot = gr.State(None)
    with gr.Row():
        buttons = {choice: gr.Button(text, min_width=100, elem_id=f"vote-{choice}") for choice, text in CHOICES.items()}
    count = gr.Markdown(elem_id="votes")
    board = pictures_board("vote")
    reveal = gr.Button("Show names and result", elem_id="reveal")
    with gr.Column(visible=False) as verdict:
        table = gr.Dataframe(label="Result", interactive=False, wrap=True, column_widths=WIDTHS, elem_id="shares")
        with gr.Row():
            files = [gr.DownloadButton(f"Votes as {kind}", elem_id=f"votes-{kind.lower()}") for kind in ("CSV", "JSON")]

    def collect(now: Ballot | None, restored: dict[str, str]) -> tuple[Any, ...]:
        results = [(name.partition(". ")[2], Path(file)) for name, file in restored.items() if name[0].isdigit()]
        shots = [(name, picture(load_image(file))) for name, file in results if file.exists()]
        return _shown((now or beginning()).adding("restored here", shots))

    def close(request: gr.Request, now: Ballot | None) -> tuple[Any, ...]:
        if now is None or not now.votes:
            raise gr.Error("Vote on a pair first.", print_exception=False)
        written = write_votes(now, sessions.visits.folder(request.session_hash or "", "votes"))
        return (*_shown(beginning()), gr.Column(visible=True), verdict_table(now), *map(str, written))

    outputs = [ballot, count, board]
    for choice, button in buttons.items():
        button.click(partial(cast_vote, choice), ballot, outputs, **PRIVATE)
    # A result is that of the votes before it: it goes when the next vote comes.
    gr.on([button.click for button in buttons.values()], lambda: gr.Column(visible=False), None, verdict, **PRIVATE)
    reveal.click(close, ballot, [*outputs, verdict, table, *files], **PRIVATE)
    return {"ballot": ballot, "collect": collect, "outputs": outputs}


def cast_vote(choice: str, now: Ballot | None) -> tuple[Any, ...]:
    """The ballot with a vote on the pair that is shown, if one is, and what stands on the page then."""
    return _shown(now.voted(choice) if now and now.coming else now or beginning())


def _shown(now: Ballot) -> tuple[Any, ...]:
    said = f"Votes: {len(now.votes)}. Pairs to come: {len(now.coming)}."
    if not now.coming:
        return now, said, '<p class="remark">No more pairs: see the result, or restore by two methods.</p>'
    names = ("Left", "Right")
    return now, said, in_columns([captioned(*each, "") for each in zip(names, now.coming[0].pictures, strict=True)], 2)


def write_votes(ballot: Ballot, folder: Path) -> tuple[Path, Path]:
    """votes.csv, a row for each vote, and votes.json with the shares too."""
    rows = [{"of": p.of, "left": p.names[0], "right": p.names[1], "vote": choice} for p, choice in ballot.votes]
    pd.DataFrame(rows).to_csv(folder / "votes.csv", index=False)
    content = {"votes": rows, "shares": shares(ballot.votes), "interval": "Wilson, 95 %"}
    write_json(folder / "votes.json", content)
    return folder / "votes.csv", folder / "votes.json"


def beginning() -> Ballot:
    """The pairs that are shipped."""
    ballot = Ballot()
    for folder in sorted(RECORD.glob("vote-*")):
        recipe, images = recorded(folder)
        names = [method.label for method in recipe.methods]
        ballot = ballot.adding(folder.name.removeprefix("vote-"), list(zip(names, map(picture, images), strict=True)))
    return ballot


def verdict_table(ballot: Ballot) -> pd.DataFrame:
    """A row for each two methods, for readers."""
    rows = []
    for found in shares(ballot.votes):
        known = "share of first" in found
        share = f"{found['share of first']:.0%} ({found['low']:.0%} to {found['high']:.0%})" if known else "–"
        rows.append([*(found[name] for name in ("first", "second", "for first", "for second", "none")), share])
    names = ["First", "Second", "Votes for first", "For second", "No difference", "Share of first (95 % interval)"]
    return pd.DataFrame(rows, columns=names)
