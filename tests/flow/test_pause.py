"""A transfer pauses for a more urgent one, and then goes on to its end."""

from pathlib import Path

import trio

from tests.flow.kit import CONTEXT, noise, open_cluster
from tests.flow.test_sender import assert_all_sent, each, wait_live, write
from tests.gateway.kit import Gateway
from transfer.client import GatewayClient
from transfer.control.gate import Gate
from transfer.control.priority import Priority
from transfer.outcomes import Counters, SendOptions, SendResult
from transfer.sender import send_files


class Urgent:
    """A more urgent transfer, as far as the gate sees it."""

    def pause(self, paused: bool) -> None:
        assert not paused


async def test_a_paused_transfer_sends_nothing_and_then_all(
    tmp_path: Path, gateway: Gateway, client: GatewayClient
) -> None:
    files = write(tmp_path / "in", 20, 100_000) | {tmp_path / "in" / "large": noise(9 << 20)}
    (tmp_path / "in" / "large").write_bytes(files[tmp_path / "in" / "large"])
    counters, gate = Counters(), Gate()
    async with open_cluster(tmp_path, "node-1", gateway=gateway) as cluster:
        cluster.advertise("node-1")
        await wait_live(client, 1)
        results: list[SendResult] = []

        async def send() -> None:
            wish = SendOptions(any_file=True)
            results.append(await send_files(client, each(files), wish, context=CONTEXT, counters=counters, gate=gate))

        async with trio.open_nursery() as nursery:
            with gate.enter(Priority.STAT, Urgent()):
                nursery.start_soon(send)
                with trio.fail_after(20):
                    while [one.objects for one in (await client.status()).transfers] != [len(files)]:
                        await trio.sleep(0.01)
                assert (counters.objects, counters.bytes, counters.encodings) == (0, 0, {})
            with trio.fail_after(20):
                while not results:
                    await trio.sleep(0.01)
        assert_all_sent(cluster, results[0], files)
