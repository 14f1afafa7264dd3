"""Hosts that trust each other: certificates, membership, the API and the streams between them."""
