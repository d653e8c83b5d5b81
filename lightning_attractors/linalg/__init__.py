"""Linear algebra below everything else: how fast products are here, and matrices brought near isometries."""

from lightning_attractors.linalg.orthogonalize import orthogonalize
from lightning_attractors.linalg.product_speed import (
    SMALL_PRODUCT,
    ProductSpeed,
    largest_product,
    measure_products,
    product_seconds,
)

__all__ = [
    "SMALL_PRODUCT",
    "ProductSpeed",
    "largest_product",
    "measure_products",
    "orthogonalize",
    "product_seconds",
]
