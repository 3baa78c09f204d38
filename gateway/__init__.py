"""The cloud proxy: transfers, placement, catalogue, events, HTTP API (asyncio)."""
