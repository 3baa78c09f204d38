"""Images fetched by the reader in every encoding that they rest in."""

import pytest

from tests.encodings.images import Image
from tests.flow.kit import listed, open_cluster
from tests.flow.test_reader import fetch_all
from transfer.encodings import IMAGE_ENCODINGS, get_encoding
from transfer.objects import object_id


@pytest.mark.parametrize("name", [name for name in IMAGE_ENCODINGS if name != "jxl-7"])
async def test_the_reader_gives_originals(tmp_path, name):
    images = [Image(rows=60, columns=50, samples=3, bits=8, stored=8), Image(rows=512, columns=512, frames=5)]
    objects = [image.encode() for image in images]
    async with open_cluster(tmp_path, "node-1") as cluster:
        for data in objects:
            incoming = cluster.nodes["node-1"].store.begin(object_id(data), len(data), name)
            incoming.write(get_encoding(name).encode(data))
            cluster.nodes["node-1"].store.commit([incoming])
        sinks = await fetch_all(cluster.go("get"), [listed(data, "node-1") for data in objects])
    assert sinks.whole == {object_id(data): data for data in objects}
