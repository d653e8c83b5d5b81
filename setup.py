"""What pyproject.toml cannot say: all packages that are found, and one more that is ``configs/``."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["lightning_attractors*"]), "lightning_attractors.configs"],
    package_dir={"lightning_attractors.configs": "configs"},
    package_data={"lightning_attractors": ["py.typed"], "lightning_attractors.configs": ["*.yaml"]},
)
