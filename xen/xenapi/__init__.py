"""The back end for XenServer and XCP-ng pools, by XenAPI (the package `XenAPI`, XML-RPC over TLS)."""
