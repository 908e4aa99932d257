"""SequenceTable: positions by hand; attention over a table is that of each sequence alone."""

from __future__ import annotations

import pytest
import torch

from streamrec_lite.model.shared_attention import SequenceTable, attend

EVEN = torch.tensor([0, 0, 1, 1, 2, 2])
UNEVEN = torch.tensor([0, 0, 1, 2, 2, 2])
LOPSIDED = torch.tensor([0] * 9 + [2] * 2 + [3])  # 12 sequences of 4 owners: a mean of 3, one has 9


def test_tables_by_hand():
    even, uneven, lopsided = (SequenceTable(x, int(x.max()) + 1) for x in (EVEN, UNEVEN, LOPSIDED))
    assert (even.width, even.size, even.full, even.rows) == (2, 6, True, None)
    assert (uneven.width, uneven.size, uneven.full, uneven.rows) == (3, 9, False, None)
    assert uneven.position.tolist() == [0, 1, 3, 6, 7, 8]
    assert (lopsided.width, lopsided.size, lopsided.full) == (3, 15, False)
    assert lopsided.rows.tolist() == [0, 0, 0, 2, 3]
    assert lopsided.position.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12]


@pytest.mark.parametrize("owner", [EVEN, UNEVEN, LOPSIDED])
def test_attention_is_that_of_each_sequence_alone(owner):
    torch.manual_seed(0)
    owners, heads, size, length = int(owner.max()) + 1, 2, 4, 5
    keys, values = torch.randn(owners, heads, size, length), torch.randn(owners, heads, length, size)
    mask = (torch.arange(length) < torch.tensor([2, 5, 3, 1])[:owners, None])[:, None, None]
    query = torch.randn(len(owner), heads * size)
    layout = SequenceTable(owner, owners)
    assert torch.equal(layout.from_table(layout.to_table(query)), query)
    shared = (layout.for_rows(x) for x in (keys, values, mask))
    got = layout.from_table(attend(layout.to_table(query), *shared))
    for i, who in enumerate(owner.tolist()):
        n = int(mask[who].sum())
        scores = torch.einsum("hd,hds->hs", query[i].view(heads, size), keys[who, :, :, :n])
        want = torch.einsum("hs,hsd->hd", scores.softmax(-1), values[who, :, :n])
        torch.testing.assert_close(got[i], want.flatten(), atol=1e-6, rtol=1e-5)


def test_selected_sequences_keep_their_owners():
    layout = SequenceTable(UNEVEN, 3).select(torch.tensor([1, 1, 2, 5]))
    assert layout.owner.tolist() == [0, 0, 1, 2]
    assert layout.owners == 3
