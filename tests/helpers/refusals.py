"""What is said of settings that cannot work."""

import pytest

from lightning_attractors.errors import SettingError


def refusal(make, *arguments, **settings):
    """The one line with which something refuses its settings."""
    with pytest.raises(SettingError) as caught:
        make(*arguments, **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message
