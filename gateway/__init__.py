"""The cloud proxy: transfers, placement, catalogue, event outbox and the control plane's HTTP API (asyncio)."""
