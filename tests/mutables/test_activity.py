import torch
from hypothesis import given
from hypothesis import strategies as st

from mutorch.mutables.activity import as_index, as_mask, count, from_mask, joined, repeated

MASKS = st.lists(st.booleans(), min_size=1, max_size=12).map(torch.tensor)


@given(MASKS)
def test_a_mask_is_a_count_exactly_where_it_leads(mask):
    active = from_mask(mask)
    leads = mask.tolist() == sorted(mask.tolist(), reverse=True)
    assert isinstance(active, int) == leads
    assert count(active) == int(mask.sum())
    assert torch.equal(as_mask(active, len(mask)), mask)
    assert torch.equal(as_index(active), mask.nonzero().flatten())
    assert torch.equal(as_mask(from_mask(mask.float()), len(mask)), mask)


@given(st.lists(MASKS, min_size=1, max_size=4), st.integers(1, 4))
def test_joining_and_repeating_do_what_they_do_to_masks(masks, times):
    whole = joined((len(mask), from_mask(mask)) for mask in masks)
    expected = torch.cat(masks)
    assert torch.equal(as_mask(whole, len(expected)), expected)
    assert type(whole) is type(from_mask(expected))
    several = repeated(whole, times)
    assert torch.equal(as_mask(several, len(expected) * times), expected.repeat_interleave(times))
    assert type(several) is type(whole)
