"""Every image encoding through a real node: stored as it came, read as it rests, wrong ones refused."""

import pytest

from tests.encodings.images import Image
from tests.nodes.kit import Running, Site, announce, open_client, raw_id
from tests.store.objects import fetch
from transfer.encodings import IMAGE_ENCODINGS, get_encoding
from transfer.objects import object_id
from transfer.protocol.messages import Get

SMALL = Image(rows=100, columns=90, signed=True, behind=bytes(40))
LARGE = Image(rows=512, columns=512, frames=9)  # more than is kept in memory, and than a reader loads at once
names = pytest.mark.parametrize("name", [name for name in IMAGE_ENCODINGS if name != "jxl-7"])


@names
@pytest.mark.parametrize("image", [SMALL, LARGE])
async def test_images_rest_as_they_came_and_are_known(site: Site, node: Running, name: str, image: Image) -> None:
    data = image.encode()
    encoding = get_encoding(name)
    stored = bytes(encoding.encode(data))
    async with open_client(node, site.ticket(node)) as client:
        await client.put(data, encoding=name)
        (receipt,) = (await client.stored(site)).receipts
        assert (receipt.object_id, receipt.size_bytes, receipt.stored_bytes) == (raw_id(data), len(data), len(stored))
        assert (receipt.encoding, receipt.identity.modality) == (name, "CT")
        assert fetch(node.store, object_id(data)) == stored
        head = await client.ask(Get(raw_id(data)))
        decoder = encoding.decoder(head.size_bytes)
        assert b"".join(decoder.feed(await client.body(head))) == data
        decoder.finish()


@names
async def test_another_image_in_its_place_is_refused(site: Site, node: Running, name: str) -> None:
    data = SMALL.encode()
    other = Image(rows=100, columns=90, signed=True, behind=bytes(40), seed=2).encode()
    stored = bytes(get_encoding(name).encode(data))
    async with open_client(node, site.ticket(node)) as client:
        for body in (bytes(get_encoding(name).encode(other)), stored[:-1], stored + b"x", data):
            await client.flow.put(announce(data, encoding=name), body)
            assert (await client.next()).code == "corrupt"
        await client.put(data, encoding=name)
        assert await client.gather(site, 1) == [object_id(data)]
    assert node.files("incoming") == []
