from accidents import held_by_another
from refusals import refusal

from lightning_attractors.cli.locks import hold, let_go


def test_a_folder_is_one_processs_at_a_time_and_free_however_that_one_ends(tmp_path):
    with held_by_another(tmp_path):
        assert "another process is training in this folder" in refusal(hold, tmp_path)
    hold(tmp_path)
    hold(tmp_path)
    let_go()
    assert list(tmp_path.iterdir()) == []
