"""The wire and what stands under every role: protocol, encodings, tickets, sender, settings, errors."""
