"""The channel's table and its sentences, from numbers made up so that each case occurs."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from channels import DOES_NOT_READ, READS, after
from tiny_world import small_world

from streamrec_lite.inference.recommender import StreamRec
from streamrec_lite.training.channel import measure_channel
from streamrec_lite.tutorial.tables import channel as tables


def test_a_row_without_a_channel_is_measured_now():
    model, tokenizer, users = small_world()
    slow = StreamRec(model, tokenizer, l=2, think="greedy")
    assert tables.kept_channel({"channel": READS}, slow, users) is READS
    assert tables.kept_channel({}, slow, users, 50) == measure_channel(slow, users, bootstrap=50)


def test_a_row_for_each_kind_of_thoughts():
    table = tables.channel_table(READS)
    assert list(table.index) == ["none", "its own", "another user's", "random codes", "annotated"]
    row = table.loc["another user's"]
    assert row["N@10"] == 0.04 and row["R@10"] == 0.08 and row["nats"] == 9.0 and row["changed (%)"] == 90
    assert row[["N@10 minus own", "N@10 low", "N@10 high"]].tolist() == [-0.16, -0.18, -0.14]
    assert row[["nats minus own", "nats low", "nats high"]].tolist() == [3.5, 3.3, 3.7]
    assert np.isnan(table.loc["none", "changed (%)"])


def test_a_model_that_reads_and_leaks():
    reads, helps, leaks = tables.channel_findings(READS)
    assert (
        reads == "The model reads its thoughts: own beats another user's by +0.1600 [+0.1400, +0.1800] N@10."
    )
    assert helps == (
        "Thinking does not help: without thoughts N@10 changes by +0.0100 [-0.0100, +0.0300], "
        "the target's cost by -0.5000 [-0.6000, -0.4000] nats."
    )
    assert leaks.startswith("Annotated thoughts leak: N@10 rises from 0.2000 to 0.8000, by +0.6000 [")


def test_a_model_that_does_neither():
    reads, _, leaks = tables.channel_findings(DOES_NOT_READ)
    assert reads.startswith("The model does not read its thoughts") and "+0.0020 [-0.0010, +0.0050]" in reads
    assert "a trace: +0.0200 [+0.0100, +0.0300] nats after another user's." in reads
    assert "only 40% of the thoughts differ" in reads
    assert leaks.startswith("Annotated thoughts leak little or nothing: N@10 goes from 0.3840 to 0.3890")


@pytest.mark.parametrize(("low", "leaks"), [(0.1, False), (0.101, True)])
def test_a_leak_adds_more_than_half_at_the_low_end_of_the_interval(low, leaks):
    channel = copy.deepcopy(READS)  # own N@10 is 0.2
    channel["after"]["annotated"]["minus own"]["N@10"]["low"] = low
    assert tables.channel_findings(channel)[2].startswith("Annotated thoughts leak: ") == leaks


@pytest.mark.parametrize(
    ("gain", "word"),
    [((-0.02, -0.03, -0.01), "Thinking helps"), ((0.02, 0.01, 0.03), "Thinking harms")],
)
def test_thinking_helps_if_answers_are_worse_without_it(gain, word):
    channel = copy.deepcopy(READS)
    channel["after"]["none"] = after(0.2 + gain[0], 5.0, gain, (0.0, 0.0, 0.0), None)
    assert tables.channel_findings(channel)[1].startswith(word)


def test_true_thoughts_are_said_where_they_are_known():
    channel = copy.deepcopy(READS)
    channel["after"]["true"] = after(0.7, 1.0, (0.5, 0.4, 0.6), (-4.5, -5.0, -4.0), 0.8)
    last = tables.channel_findings(channel)[3]
    assert last == "After the true thoughts N@10 is 0.7000: minus own +0.5000 [+0.4000, +0.6000]."


def test_without_differences_there_is_nothing_to_say():
    channel = copy.deepcopy(READS)
    channel["after"]["another"]["changed"] = 0.0
    assert tables.channel_findings(channel)[0].startswith("All users have the same thoughts")
    channel["after"]["another"]["changed"] = None
    assert tables.channel_findings(channel) == ["The model writes no thoughts, so there is nothing to read."]
