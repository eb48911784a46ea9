"""Acme, a made-up brand: its authorization server (`allauth.idp.oidc`), its customers, and its orders API."""
