"""The identifier against a catalogue of losses as people write them, and against files that misbehave."""

from __future__ import annotations

import pytest

from ptarmigan import identify
from ptarmigan.identities import identify_one
from variants_losses import VARIANTS, Variant


@pytest.mark.parametrize("variant", VARIANTS, ids=[variant.label for variant in VARIANTS])
def test_each_variant_is_known_for_what_it_is_and_no_right_one_is_accused(variant: Variant) -> None:
    found = identify_one(variant.function, variant.label, variant.kind, variant.told_on)
    print(found)
    assert found.right == (not variant.says), found.wrong
    assert variant.says in " | ".join(found.wrong)
    assert found.name == variant.name
    assert found.player == variant.player
    assert found.reduction == variant.reduction
    assert found.on == variant.on
    if "unknown" not in found.name:
        assert found.scale == pytest.approx(variant.scale, rel=1e-3)
        assert abs(found.offset) < 1e-3
    for mine, theirs in ((found.smoothing, variant.smoothing), (found.class_weight, variant.class_weight)):
        assert mine == theirs if theirs is None else mine == pytest.approx(theirs, abs=0.01)
    assert max(map(len, str(found).splitlines())) < 120
