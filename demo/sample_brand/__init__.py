"""Acme, the sample brand: an authorization server (`allauth.idp.oidc`), two customers, and an orders API."""
