import matplotlib
import pytest
from matplotlib.figure import Figure

from lightning_attractors.figures import as_file, in_lines, in_style, write_figure


@in_style
def line():
    figure = Figure()
    figure.subplots().plot([0, 1], [0, 1])
    return figure


def test_figures_look_the_same_whatever_the_user_has_set():
    expected = as_file(line(), "png")
    with matplotlib.rc_context({"axes.facecolor": "white", "lines.linewidth": 9, "savefig.dpi": 10}):
        assert as_file(line(), "png") == expected
        assert matplotlib.rcParams["lines.linewidth"] == 9  # and are left to them


def test_a_figure_is_written_to_look_at_and_to_print(tmp_path):
    for _ in range(2):
        write_figure(tmp_path / "new" / "attack.of.mine", line())
        files = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    assert files.keys() == {"attack.of.mine.png", "attack.of.mine.pdf"}
    assert files["attack.of.mine.pdf"] == as_file(line(), "pdf")  # the time is not in it
    assert b"/Type /Font" in files["attack.of.mine.pdf"]


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        write_figure(tmp_path / "file" / "figure", line())


def test_names_are_broken_where_they_have_a_joint_and_end_after_three_lines():
    for name, expected in (
        ("Straßenbahn Linie 7 (alt)", "Straßenbahn\nLinie 7\n(alt)"),
        ("bicycle-built-for-two", "bicycle-\nbuilt-for-\ntwo"),
        ("golden_retriever_puppy", "golden_\nretriever_\npuppy"),
        ("Donaudampfschifffahrtsgesellschaft", "Donaudampfs-\nchifffahrts-\ngesellschaft"),
        ("Donaudampfschifffahrtsgesellschaften", "Donaudampfs-\nchifffahrts…"),
        ("cat", "cat"),
        ("2 $ or 5 $", r"2 \$ or 5 \$"),
        ("", ""),
    ):
        assert in_lines(name, 12 * 0.64 * 8 / 72 + 1e-9) == expected
