import asyncio

from k2.ingestion.past import DELISTED_DELAY_S, FAILED_DELAY_MAX_S, page_from
from unit.ingestion.shard_world import FakeRest, beside, virtual_host, virtually


def test_a_rest_that_refuses_is_asked_ever_more_slowly() -> None:
    async def tell() -> None:
        rest = FakeRest()
        rest.failures = 10_000

        async def story() -> None:
            await asyncio.sleep(3600)
            calls = 3600 / FAILED_DELAY_MAX_S
            assert calls < len(rest.asked) < 3 * calls

        await beside(page_from(rest, "BTCUSDT", from_id=1, host=virtual_host()), story())

    virtually(tell())


def test_a_symbol_that_is_not_listed_is_asked_for_now_and_then() -> None:
    async def tell() -> None:
        rest, told = FakeRest(), list[float]()
        rest.newest, rest.unlisted = 5, {"BTCUSDT"}
        now_s = asyncio.get_running_loop().time

        async def story() -> None:
            await asyncio.sleep(DELISTED_DELAY_S / 2)
            assert len(told) == 1
            rest.unlisted = set()

        page, _ = await asyncio.gather(
            page_from(
                rest,
                "BTCUSDT",
                from_id=1,
                host=virtual_host(),
                unlisted=lambda: told.append(now_s()),
            ),
            story(),
        )
        assert [row.source_id for row in page] == [1, 2, 3, 4, 5]
        assert len(rest.asked) == 2
        assert now_s() > DELISTED_DELAY_S

    virtually(tell())
