"""Images of one's own, in a folder for every class."""

from __future__ import annotations

import unicodedata
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader
from torchvision.datasets.folder import IMG_EXTENSIONS

from lightning_attractors.data.pictures import (
    PictureDataModule,
    Pictures,
    PictureSettings,
    UnlabelledPictures,
)
from lightning_attractors.errors import SettingError, require
from lightning_attractors.image_files import oddity_of, read_image
from lightning_attractors.keywords import Unpack

_KINDS = ", ".join(sorted(IMG_EXTENSIONS))
_SPLITS = ("train", "val", "test")
_LAYOUT = "one folder of images for every class, or train and perhaps val and test with such folders"


class ImageFolderDataModule(PictureDataModule):
    """Images of one's own: a folder for every class, named as the class is.

    The folders are ``<root>/<class>``, and splits are made of them; or ``<root>/train/<class>``, and perhaps
    ``<root>/val/<class>`` and ``<root>/test/<class>``: one of these that is missing is taken from the
    training images. Folders within those of the classes count; what begins with a dot does not. An image of
    another size than ``image_size`` is cut to its middle part of that shape and resized. Grey and colour
    become what ``channels`` says, what is transparent counts as white, of 16 bits the upper 8 are kept.

    Args:
        root: the folder.
        image_size: side of the images in pixels, or height and width; each at least 1.
        channels: 3 for colour, 1 for grey.
        predict_root: a folder of images without classes, those in folders within it too, that are predicted
            in place of the test images.
        **pictures: the settings of :class:`~lightning_attractors.data.pictures.PictureDataModule`.

    Raises:
        SettingError: when a setting is out of range, or the folder is laid out in another way; in ``setup``,
            if a file is no image, or a class has too few.

    Example:
        In YAML, with a transform of the training images::

            data:
              class_path: ImageFolderDataModule
              init_args:
                root: photos
                image_size: 64
                transforms:
                  - class_path: torchvision.transforms.v2.RandomRotation
                    init_args: {degrees: 10}
    """

    def __init__(
        self,
        root: str,
        image_size: int | tuple[int, int],
        channels: Literal[1, 3] = 3,
        predict_root: str | None = None,
        **pictures: Unpack[PictureSettings],
    ) -> None:
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        require(min(height, width) >= 1, "image_size", image_size, "must be at least 1")
        require(channels in (1, 3), "channels", channels, "must be 1 for grey or 3 for colour")
        self.image_shape = (channels, height, width)
        super().__init__(**pictures)
        self.root = root
        self.predict_root = predict_root
        if predict_root is not None:
            wanted = Path(predict_root).expanduser()
            valid = "must be a folder, of images" if wanted.is_file() else "must be a folder that exists"
            require(wanted.is_dir(), "predict_root", predict_root, valid)
        self._folders = self._split_folders()
        self._classes = {name: _class_folders(folder) for name, folder in self._folders.items()}
        self.class_names = list(self._classes["train"])
        self.num_classes = len(self.class_names)
        self._check_classes()

    def find_splits(self) -> dict[str, Pictures]:
        """The images of every split that has a folder.

        Raises:
            SettingError: if a class has none, or a file is none.
        """
        files = {
            split: {name: _files(folder) for name, folder in classes.items()}
            for split, classes in self._classes.items()
        }
        images = {
            split: {name: [path for path in paths if _is_image(path)] for name, paths in classes.items()}
            for split, classes in files.items()
        }
        for split, classes in images.items():
            empty = [name for name, paths in classes.items() if not paths]
            valid = f"must have images ({_KINDS}) of every class; {self._folders[split]} has none of {empty}"
            require(not empty, "root", self.root, valid)
        _note([path for classes in files.values() for paths in classes.values() for path in paths])
        return {split: self._pictures(list(classes.values())) for split, classes in images.items()}

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        for split, dataset in self.datasets.items():
            dataset.files = _files_of(self.splits[split])

    def predict_dataloader(self) -> DataLoader[Any]:
        """Batches of images of ``predict_root`` alone, or else the test batches.

        Raises:
            SettingError: if there are none in it, or a file is no image.
        """
        if self.predict_root is None:
            return super().predict_dataloader()
        files = _files(Path(self.predict_root).expanduser())
        images = [path for path in files if _is_image(path)]
        valid = f"must have images ({_KINDS}); it has none"
        require(len(images) > 0, "predict_root", self.predict_root, valid)
        _note(files)
        found = self._pictures([images])
        return self.predict_loader_of(UnlabelledPictures(found, _files_of(found)))

    def _pictures(self, classes: list[list[Path]]) -> Pictures:
        paths = [path for files in classes for path in files]
        labels = np.repeat(np.arange(len(classes)), [len(files) for files in classes])
        items = np.array([*paths, None], dtype=object)[:-1]  # of objects, even where there is one
        read_one = partial(read_image, image_shape=self.image_shape)
        return Pictures(read_one, items, labels, self.image_shape).in_turn()

    def _split_folders(self) -> dict[str, Path]:
        """The folder of each split that there is; the root itself holds the training images of the rest."""
        root = Path(self.root).expanduser()
        require(root.is_dir(), "root", self.root, "must be a folder that exists")
        names = [folder.name for folder in _folders(root)]
        require(len(names) > 0, "root", self.root, f"must hold {_LAYOUT}; it has no folders")
        if "train" not in names:
            self._require_no_splits(root)
            return {"train": root}
        others = sorted({*names} - {*_SPLITS})
        require(not others, "root", self.root, f"must have only val and test beside train; it has {others}")
        return {name: root / name for name in _SPLITS if name in names}

    def _require_no_splits(self, root: Path) -> None:
        """Refuse folders that hold folders alone: splits of other names, which are no classes."""
        below = [folder for folder in _folders(root) if _folders(folder)]
        splits = [folder.name for folder in below if not any(map(_is_image, folder.iterdir()))]
        require(not splits, "root", self.root, f"must hold {_LAYOUT}; {splits} hold folders, and no images")

    def _check_classes(self) -> None:
        """See that there are classes, the same in every split."""
        found = self.class_names
        require(len(found) >= 2, "root", self.root, f"must have at least 2 classes; it has {found}")
        for split, classes in self._classes.items():
            for name in found:
                require(name in classes, "root", self.root, f"{split} must have the class {name!r} of train")
            for name in classes:
                require(name in found, "root", self.root, f"train must have the class {name!r} of {split}")


def _note(files: list[Path]) -> None:
    """Name in a line each what files are no images by their names, and what of images cannot be kept.

    Raises:
        SettingError: naming the first image that is none.
    """
    images = [path for path in files if _is_image(path)]
    others = [path for path in files if not _is_image(path)]
    if others:
        text = f"{len(others)} files do not have the name of an image and are left out"
        rank_zero_warn(f"{text}: {_readable(others[0])} is one")
    with ThreadPoolExecutor() as threads:
        oddities = list(threads.map(oddity_of, images))
    for oddity in sorted({*oddities} - {""}):
        first = images[oddities.index(oddity)]
        text = f"{oddities.count(oddity)} of {len(images)} images have {oddity}"
        rank_zero_warn(f"{text}: {_readable(first)} is one")


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones.

    Raises:
        SettingError: if it cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise SettingError("root", str(folder), f"cannot be read ({error.strerror})") from error


def _class_folders(folder: Path) -> dict[str, Path]:
    """The folders of the classes by their names: systems write the same umlaut in more than one way."""
    found: dict[str, Path] = {}
    for path in _folders(folder):
        name = unicodedata.normalize("NFC", _readable(path.name))
        valid = f"must have classes of different names: {found.get(name)} and {path} have the same"
        require(name not in found, "root", str(folder), valid)
        found[name] = path
    return found


def _files(folder: Path) -> list[Path]:
    """All files in a folder and those below it, sorted, without hidden ones."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def _files_of(pictures: Pictures) -> list[str]:
    return [_readable(path) for path in pictures.items]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMG_EXTENSIONS


def _readable(name: str | Path) -> str:
    """A name for files of text, which take no bytes that are no UTF-8."""
    return str(name).encode("utf-8", "replace").decode()
