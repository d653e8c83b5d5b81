import torch
from robustness_runs import Bright, pictures

from lightning_attractors.robustness import check_masking


def backwards(images):
    """Classes of Bright, and its gradient with the sign turned."""
    logits = Bright().eval()(images)
    return 2 * logits.detach() - logits


def test_a_gradient_that_misleads_is_found_out():
    images, labels = pictures()
    honest = check_masking(Bright().eval(), images, labels, batch_size=16, queries=50)
    assert not honest.masked
    assert honest.white_box >= honest.images / 2
    assert honest.sentence.startswith("No sign of masked gradients")
    masked = check_masking(backwards, images, labels, batch_size=16, queries=50)
    assert masked.masked
    assert masked.white_box == 0
    assert masked.only_black_box > 10
    assert masked.only_transferred > 0
    assert masked.sentence.startswith("Gradients ARE masked")


def test_ties_in_float32_are_all_broken_at_their_radius():
    # One step takes each of them, and float32 has it 1/255 a little less or more
    images = torch.linspace(0.4981, 0.4999, 21).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    found = check_masking(Bright().eval(), images, torch.zeros(21, dtype=torch.int64), 16, queries=1)
    assert found.white_box == found.images == 21
