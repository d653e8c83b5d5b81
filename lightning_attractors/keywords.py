"""Keyword arguments that are described once, by the class that has them, and passed on by its subclasses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Unpack as Unpack
else:

    class Unpack:
        """``Unpack[SomeTypedDict]`` for type checkers and editors, ``Any`` when it runs.

        jsonargparse takes the real one for required settings without a default or a description. Of keywords
        of any type it asks the class that they are passed on to, and finds both.
        """

        def __class_getitem__(cls, item: Any) -> Any:
            return Any
