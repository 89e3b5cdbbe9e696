"""Two tenants and one GPU: a device that asserts that only one of them is ever on it."""

from __future__ import annotations

import asyncio
import random

import pytest

from npc_local.core.errors import BackendError
from npc_local.run.gpu_sharing import GpuSharing, Tenant


class Device:
    """A GPU that only one tenant may be on, and that only its holder may work on."""

    def __init__(self) -> None:
        self.holder: str | None = None
        self.history: list[str] = []
        self.fail_next: str | None = None

    def tenant(self, name: str) -> Tenant:
        async def enter() -> None:
            await asyncio.sleep(0)
            assert self.holder is None, f"{name} enters while {self.holder} is there"
            if self.fail_next == name:
                self.fail_next = None
                raise BackendError(f"{name} cannot start")
            self.holder = name
            self.history.append(f"+{name}")

        async def leave() -> None:
            await asyncio.sleep(0)
            assert self.holder == name
            self.holder = None
            self.history.append(f"-{name}")

        return Tenant(name, enter, leave)

    def work(self, name: str) -> None:
        assert self.holder == name, f"{name} works while {self.holder} has the device"
        self.history.append(name)


@pytest.fixture
def device() -> Device:
    return Device()


def test_a_tenant_keeps_the_device_until_the_other_wants_it(device: Device) -> None:
    async def scenario() -> None:
        images, agents = device.tenant("images"), device.tenant("agents")
        sharing = GpuSharing(images, agents)
        for tenant in (images, images, agents, agents, images):
            async with sharing.lease(tenant):
                device.work(tenant.name)
        await sharing.close()

    asyncio.run(scenario())
    assert device.history == [
        *("+images", "images", "images", "-images"),
        *("+agents", "agents", "agents", "-agents"),
        *("+images", "images", "-images"),
    ]


def test_work_of_one_tenant_overlaps_and_is_drained_before_the_other(device: Device) -> None:
    async def scenario() -> None:
        images, agents = device.tenant("images"), device.tenant("agents")
        sharing = GpuSharing(images, agents)
        both_inside = asyncio.Barrier(2)

        async def agent() -> None:
            async with sharing.lease(agents):
                await asyncio.wait_for(both_inside.wait(), 5)
                await asyncio.sleep(0.01)
                device.work("agents")

        async def image() -> None:
            async with sharing.lease(images):
                device.work("images")

        first = [asyncio.create_task(agent()) for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.gather(*first, image())

    asyncio.run(scenario())
    assert device.history == ["+agents", "agents", "agents", "-agents", "+images", "images"]


@pytest.mark.parametrize("seed", range(5))
def test_any_order_of_many_leases_keeps_the_tenants_apart(device: Device, seed: int) -> None:
    draw = random.Random(seed)
    plan = [draw.choice(["images", "agents"]) for _ in range(60)]

    async def scenario() -> None:
        tenants = {name: device.tenant(name) for name in ("images", "agents")}
        sharing = GpuSharing(**tenants)

        async def one(name: str, naps: int) -> None:
            async with sharing.lease(tenants[name]):
                for _ in range(naps):
                    device.work(name)
                    await asyncio.sleep(0)

        await asyncio.wait_for(
            asyncio.gather(*(one(name, draw.randint(1, 4)) for name in plan)), 10
        )
        await sharing.close()

    asyncio.run(scenario())
    assert device.holder is None


def test_a_tenant_that_cannot_enter_is_tried_again(device: Device) -> None:
    async def scenario() -> None:
        images, agents = device.tenant("images"), device.tenant("agents")
        sharing = GpuSharing(images, agents)
        async with sharing.lease(images):
            pass
        device.fail_next = "agents"
        with pytest.raises(BackendError, match="cannot start"):
            async with sharing.lease(agents):
                pass
        async with sharing.lease(agents):
            device.work("agents")

    asyncio.run(scenario())
    assert device.history == ["+images", "-images", "+agents", "agents"]


def test_a_cancelled_lease_frees_the_device(device: Device) -> None:
    async def scenario() -> None:
        images, agents = device.tenant("images"), device.tenant("agents")
        sharing = GpuSharing(images, agents)

        async def forever() -> None:
            async with sharing.lease(agents):
                await asyncio.sleep(3600)

        task = asyncio.create_task(forever())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(5), sharing.lease(images):
            device.work("images")

    asyncio.run(scenario())


def test_only_backends_on_the_gpu_need_a_lease(device: Device) -> None:
    async def scenario() -> None:
        images, agents = device.tenant("images"), device.tenant("agents")
        sharing = GpuSharing(images, agents, frozenset({"server"}))
        async with sharing.lease(images), sharing.lease_for("elsewhere"):
            device.work("images")
        for name in ("server", None):
            async with sharing.lease_for(name):
                device.work("agents")

    asyncio.run(scenario())
    assert device.history == ["+images", "images", "-images", "+agents", "agents", "agents"]


def test_what_entered_in_part_leaves_before_the_other_enters(device: Device) -> None:
    """A second server that fails, or a model that half fits, must not stay behind."""
    on_device: set[str] = set()

    async def enter_in_part() -> None:
        on_device.add("agents")
        if len(on_device) == 1 and not failed:
            failed.append(True)
            raise BackendError("the second server does not start")

    async def leave() -> None:
        on_device.discard("agents")

    async def enter_images() -> None:
        assert not on_device, on_device
        on_device.add("images")

    async def leave_images() -> None:
        on_device.discard("images")

    failed: list[bool] = []
    agents = Tenant("agents", enter_in_part, leave)
    images = Tenant("images", enter_images, leave_images)

    async def scenario() -> None:
        sharing = GpuSharing(images, agents)
        with pytest.raises(BackendError):
            async with sharing.lease(agents):
                pass
        async with sharing.lease(images):
            assert on_device == {"images"}
        async with sharing.lease(agents):
            assert on_device == {"agents"}
        await sharing.close()
        assert not on_device

    asyncio.run(scenario())


def test_a_tenant_that_cannot_leave_keeps_the_other_out(device: Device) -> None:
    stuck = [True]

    async def leave() -> None:
        if stuck.pop() if stuck else False:
            raise BackendError("does not stop")

    async def nothing() -> None:
        pass

    agents, images = Tenant("agents", nothing, leave), Tenant("images", nothing, nothing)

    async def scenario() -> None:
        sharing = GpuSharing(images, agents)
        async with sharing.lease(agents):
            pass
        with pytest.raises(BackendError, match="does not stop"):
            async with sharing.lease(images):
                pytest.fail("entered beside it")
        async with sharing.lease(images):
            pass

    asyncio.run(scenario())


def test_a_cancelled_exchange_is_finished_before_the_next(device: Device) -> None:
    entering = []

    async def slow() -> None:
        entering.append("begin")
        await asyncio.sleep(0.05)
        entering.append("end")

    async def nothing() -> None:
        pass

    agents, images = Tenant("agents", slow, nothing), device.tenant("images")

    async def scenario() -> None:
        sharing = GpuSharing(images, agents)
        first = asyncio.create_task(sharing.acquire(agents))
        await asyncio.sleep(0.01)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert entering == ["begin", "end"]
        async with sharing.lease(images):
            device.work("images")

    asyncio.run(scenario())


def test_closing_waits_for_the_work_under_way(device: Device) -> None:
    async def scenario() -> None:
        images, agents = device.tenant("images"), device.tenant("agents")
        sharing = GpuSharing(images, agents)
        let_go = asyncio.Event()

        async def image() -> None:
            async with sharing.lease(images):
                await let_go.wait()
                device.work("images")

        working = asyncio.create_task(image())
        while device.holder is None:
            await asyncio.sleep(0)
        closing = asyncio.create_task(sharing.close())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not closing.done()
        assert device.holder == "images"
        let_go.set()
        await asyncio.gather(working, closing)

    asyncio.run(scenario())
    assert device.history == ["+images", "images", "-images"]


def test_the_device_changes_hands_only_when_all_is_quiet(device: Device) -> None:
    async def scenario() -> None:
        images, agents = device.tenant("images"), device.tenant("agents")
        sharing = GpuSharing(images, agents)
        quiet = False
        sharing.quiet = lambda: quiet

        async def work(tenant: Tenant) -> None:
            async with sharing.lease(tenant):
                device.work(tenant.name)

        await work(agents)  # nobody had it: there is nothing to wait for
        waiting = asyncio.create_task(work(images))
        for _ in range(20):
            await asyncio.sleep(0)
            sharing.look_again()
        await work(agents)
        assert device.history == ["+agents", "agents", "agents"]
        quiet = True
        sharing.look_again()
        await waiting

    asyncio.run(scenario())
    assert device.history == ["+agents", "agents", "agents", "-agents", "+images", "images"]
