"""Brands, the authorization servers they sign their consumers in at, and the keys of their bots."""

from brands.models.authorization_server import AuthorizationServer
from brands.models.bot_key import BotKey
from brands.models.brand import Brand
from brands.models.logo import Logo
from brands.models.same_person import SamePersonCheck

__all__ = ["AuthorizationServer", "BotKey", "Brand", "Logo", "SamePersonCheck"]
