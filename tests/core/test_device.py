from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from npc_local.core.device import torch_threads
from npc_local.core.threads import run_in


def test_torch_gets_its_threads_back():
    before = torch.get_num_threads()
    with torch_threads(before + 2):
        assert torch.get_num_threads() == before + 2
    assert torch.get_num_threads() == before
    with pytest.raises(RuntimeError, match="no"), torch_threads(before + 1):
        raise RuntimeError("no")
    assert torch.get_num_threads() == before


def test_without_a_number_torch_decides():
    before = torch.get_num_threads()
    with torch_threads(None):
        assert torch.get_num_threads() == before


def test_the_number_holds_in_the_thread_that_works():
    def work():
        before = torch.get_num_threads()
        with torch_threads(before + 1):
            return torch.get_num_threads() - before

    with ThreadPoolExecutor(1) as thread:
        assert asyncio.run(run_in(thread, work)) == 1
