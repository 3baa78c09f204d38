"""Deciding how a transfer uses the link: number of flows, rate, priority. Pure, but for the modules that say so."""
