"""The task model around a stand-in counts in its metrics whatever the stand-in answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from report_toys import opened

from carkp_core.quant_report.source import Source, open_source
from carkp_core.quant_report.trial import Trial
from carkp_core.train.loaders import LoaderPlan


def trial_of(folder: Path) -> tuple[Source, Trial, Any]:
    session = opened(folder)
    source = open_source(session)
    plan = LoaderPlan.of(source.data, session.context)
    return source, Trial(source), plan.collate_fn([plan.dataset[i] for i in range(6)])


def test_it_hands_out_what_the_network_is_called_with(folder: Path) -> None:
    _, trial, batch = trial_of(folder)
    (images,) = trial.images(batch)
    assert torch.equal(images, batch["img"])


def test_right_and_wrong_answers_are_counted(folder: Path) -> None:
    source, trial, batch = trial_of(folder)
    (images,) = trial.images(batch)
    with torch.no_grad():
        right = source.network.nested(source.network.float_values([images]))
    wrong = torch.zeros_like(right)
    good, bad = trial.score(right), trial.score(wrong)
    assert trial.compute(good) == {"found": 1.0}
    assert trial.compute(bad)["found"] < 0.5
    both = [{key: good[0][key] + bad[0][key] for key in good[0]}]
    assert trial.compute(both)["found"] == (1.0 + trial.compute(bad)["found"]) / 2
    assert trial.compute(good) == {"found": 1.0}, "asking changes nothing"
