import torch

from lightning_attractors.linalg import product_dtype


def test_products_run_in_what_autocast_asks_for_where_it_asks():
    x = torch.zeros(1, dtype=torch.float64)
    assert product_dtype(x) == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert product_dtype(x) == torch.bfloat16
        with torch.autocast("cpu", enabled=False):
            assert product_dtype(x) == torch.float64
