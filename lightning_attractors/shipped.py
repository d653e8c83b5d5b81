"""The configs that come with the package: where they are, and what each of them is."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from lightning_attractors.errors import require


def shipped_configs() -> dict[str, Path]:
    """The files by their names, in alphabetical order.

    They are in the package where it was installed from a wheel, and beside it in a clone.
    """
    package = Path(__file__).parent
    installed = package / "configs"
    folder = installed if installed.is_dir() else package.parent / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def shipped_config(name: str, setting: str, folder: Path) -> Path | None:
    """The shipped config of a name, or None for what is none of their names.

    Args:
        name: what a user has written.
        setting: where, for a message.
        folder: the folder that paths there are relative to.

    Raises:
        SettingError: if a file in the folder may be meant as well.
    """
    path = shipped_configs().get(name)
    if path is None:
        return None
    for file in (folder / name, folder / f"{name}.yaml"):
        own = not file.is_file() or file.samefile(path)
        shown = file if folder.parts else f"./{file}"
        require(own, setting, name, f"is a shipped config, and a file here; write {shown}, or {path}")
    return path


def meant_shipped(given: str) -> str:
    """Which shipped config was probably meant by the name or path of one that is not there, as a question."""
    close = get_close_matches(Path(given).stem, shipped_configs(), n=1, cutoff=0.7)
    if close:
        return f"; did you mean the shipped {close[0]}?"
    return "; `attractors configs` lists those that are shipped"


def describe_configs() -> str:
    """The names of all shipped configs, each with the first line of its file."""
    configs = shipped_configs()
    width = max(map(len, configs), default=0)
    return "\n".join(f"{name:{width}}  {_first_line(path)}" for name, path in configs.items())


def _first_line(path: Path) -> str:
    return path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")
