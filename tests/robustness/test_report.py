import pytest

from lightning_attractors.robustness.report import result_line


@pytest.mark.parametrize("agrees", [True, False, None])
def test_the_line_says_where_the_steps_do_not_agree(agrees):
    summary = {"attack": "pgd_radius", "fitted": True, "R": 0.1, "uncertainty": 0.01, "accuracy": 1.0}
    summary |= {"images": {"all": 9, "counted": 8}}
    summary |= {"steps": {"R_times_step_size": 0.25, "agrees_within_5_percent": agrees}}
    assert ("step size × R in steps is 0.25" in result_line(summary, 1.0)) == (agrees is False)
