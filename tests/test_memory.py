from refusals import refusal

from lightning_attractors.memory import require_memory


def test_what_cannot_fit_into_memory_is_refused_with_both_sizes():
    require_memory("width", 10, 10)
    message = refusal(require_memory, "width", 10**15, 10**15)
    assert "width=1000000000000000: must be smaller: it needs 1,862,645 GiB, and there are" in message
